use super::*;

struct Pki {
    root: CertificateDer<'static>,
    params: CertificateParams,
    key: KeyPair,
}

/// An authority without a cluster key, as an organisation has it.
fn pki(name: &str) -> Pki {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    Pki { root: params.self_signed(&key).unwrap().der().clone(), params, key }
}

impl Pki {
    fn leaf(&self, name: &str, usages: &[ExtendedKeyUsagePurpose], key: &KeyPair) -> CertificateDer<'static> {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = usages.to_vec();
        params.signed_by(key, &rcgen::Issuer::from_params(&self.params, &self.key)).unwrap().der().clone()
    }
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

const BOTH: &[ExtendedKeyUsagePurpose] = &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];

#[test]
fn each_generated_identity_is_another_node() {
    let key = ClusterKey::generate().unwrap();
    let (one, other) = (Identity::generate(&key).unwrap(), Identity::generate(&key).unwrap());
    assert_ne!(one.node_id(), other.node_id());
    let leaf = &one.certified.cert[0];
    assert_eq!(node_id_of(leaf).unwrap(), one.node_id());
    let public = one.certified.key.public_key().unwrap();
    assert_eq!(one.node_id(), NodeId(Sha256::digest(public).into()));
    assert_eq!(leaf.len(), other.certified.cert[0].len(), "handshakes are of equal size");
    assert_eq!(format!("{one:?}"), format!("Identity({})", one.node_id().short()));
}

#[test]
fn a_leaf_of_another_cluster_is_not_trusted() {
    let [one, other] = [1, 2].map(|byte| Identity::generate(&ClusterKey::from_bytes(&[byte; 32])).unwrap());
    check_chain(&one.certified.cert, &one.roots, chain::now()).unwrap();
    let error = check_chain(&other.certified.cert, &one.roots, chain::now()).unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
}

#[test]
fn an_own_pki_works_and_its_mistakes_are_named() {
    let (authority, stranger) = (pki("our authority"), pki("some authority"));
    let (key, other_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let roots = || vec![authority.root.clone()];
    let leaf = authority.leaf(SERVER_NAME, BOTH, &key);

    let identity = Identity::from_pki(vec![leaf.clone()], private(&key), roots()).unwrap();
    assert_eq!(identity.node_id(), node_id_of(&leaf).unwrap());

    let error = |chain: Vec<CertificateDer<'static>>, key: &KeyPair, roots: Vec<CertificateDer<'static>>| {
        Identity::from_pki(chain, private(key), roots).unwrap_err()
    };
    assert!(matches!(error(vec![], &key, roots()), IdentityError::ChainLength { found: 0 }));
    let long = vec![leaf.clone(); CHAIN_CERTIFICATES_MAX + 1];
    assert!(matches!(error(long, &key, roots()), IdentityError::ChainLength { found: 9 }));
    assert!(matches!(error(vec![leaf.clone()], &key, vec![]), IdentityError::NoRoots));
    let bad_root = vec![authority.root.clone(), vec![0x30, 0].into()];
    assert!(matches!(error(vec![leaf.clone()], &key, bad_root), IdentityError::Root { position: 2, .. }));
    assert!(matches!(error(vec![vec![1, 2, 3].into()], &key, roots()), IdentityError::Leaf(_)));
    assert!(matches!(error(vec![leaf.clone()], &other_key, roots()), IdentityError::PrivateKey(_)));
    let untrusted = error(vec![leaf], &key, vec![stranger.root]);
    assert!(matches!(untrusted, IdentityError::NotGoodForServer(_)), "{untrusted}");
    let misnamed = error(vec![authority.leaf("elsewhere", BOTH, &key)], &key, roots());
    assert!(matches!(misnamed, IdentityError::NotGoodForServer(_)), "{misnamed}");
    let server_only = error(vec![authority.leaf(SERVER_NAME, &BOTH[..1], &key)], &key, roots());
    assert!(matches!(server_only, IdentityError::NotGoodForClient(_)), "{server_only}");
    let client_only = error(vec![authority.leaf(SERVER_NAME, &BOTH[1..], &key)], &key, roots());
    assert!(matches!(client_only, IdentityError::NotGoodForServer(_)), "{client_only}");
}

#[test]
fn a_private_key_that_is_none_is_refused() {
    let authority = pki("our authority");
    let leaf = authority.leaf(SERVER_NAME, BOTH, &KeyPair::generate().unwrap());
    let key = PrivatePkcs8KeyDer::from(vec![0x5e; 40]).into();
    let error = Identity::from_pki(vec![leaf], key, vec![authority.root]).unwrap_err();
    assert!(matches!(error, IdentityError::PrivateKey(_)), "{error}");
    assert!(!format!("{error:?}").contains("94, 94"));
}

#[test]
fn a_node_key_read_back_gives_the_same_identity_byte_for_byte() {
    let cluster = ClusterKey::from_bytes(&[3; 32]);
    let key = NodeKey::generate().unwrap();
    let read = NodeKey::from_pkcs8(&key.to_pkcs8()).unwrap();
    let [one, other] = [&key, &read].map(|key| Identity::with_node_key(&cluster, key).unwrap());
    assert_eq!(one.certified.cert, other.certified.cert);
    assert_eq!(one.node_id(), key.node_id());
    assert_eq!(read.node_id(), key.node_id());
    assert_eq!(format!("{key:?}"), format!("NodeKey({})", key.node_id().short()));

    let elsewhere = Identity::with_node_key(&ClusterKey::from_bytes(&[4; 32]), &key).unwrap();
    assert_eq!(elsewhere.node_id(), one.node_id(), "a node keeps its id when the cluster key changes");
    assert_ne!(elsewhere.certified.cert, one.certified.cert);
}

#[test]
fn bytes_that_are_no_node_key_are_refused() {
    let good = NodeKey::generate().unwrap().to_pkcs8();
    for bytes in [&[][..], &good[..good.len() - 1], &[0x5e; 48]] {
        let error = NodeKey::from_pkcs8(bytes).unwrap_err();
        assert!(error.to_string().starts_with("this is not an Ed25519 private key"), "{error}");
        assert!(!format!("{error:?}").contains("94, 94"));
    }
}

#[test]
fn under_other_keys_a_node_stays_itself_and_trusts_both() {
    let [old, next, other] = [1, 2, 3].map(|byte| ClusterKey::from_bytes(&[byte; 32]));
    let [of_old, of_next, of_other] = [&old, &next, &other].map(|key| Identity::generate(key).unwrap());
    let mut keys = ClusterKeys::from(old);
    keys.begin_rotation(next).unwrap();
    let begun = of_old.with_keys(&keys).unwrap();
    keys.switch().unwrap();
    let switched = of_old.with_keys(&keys).unwrap();
    keys.finish().unwrap();
    let finished = switched.with_keys(&keys).unwrap();
    for identity in [&begun, &switched, &finished] {
        assert_eq!((identity.node_id(), &identity.reset_secret), (of_old.node_id(), &of_old.reset_secret));
        assert!(!identity.trusts(&of_other.certified.cert) && !identity.trusts(&[]));
    }
    let trusts = |identity: &Identity| [&of_old, &of_next].map(|peer| identity.trusts(&peer.certified.cert));
    assert_eq!([&begun, &switched, &finished].map(trusts), [[true, true], [true, true], [false, true]]);
    // It presents a certificate of the primary key.
    assert!(of_old.trusts(&begun.certified.cert) && !of_old.trusts(&switched.certified.cert));
    assert!(of_next.trusts(&[switched.issued_certificate().unwrap().clone()]));
    assert!(of_old.certified.cert[0].len() <= cloudy_proto::limits::CERTIFICATE_BYTES_MAX, "it fits into a frame");

    let (authority, key) = (pki("our authority"), KeyPair::generate().unwrap());
    let leaf = authority.leaf(SERVER_NAME, BOTH, &key);
    let own = Identity::from_pki(vec![leaf], private(&key), vec![authority.root.clone()]).unwrap();
    assert!(own.issued_certificate().is_none());
    assert!(matches!(own.with_keys(&keys), Err(IdentityError::OwnPki)));
}

#[test]
fn a_cluster_keys_certificates_are_valid_at_every_time_that_a_clock_shows() {
    let identity = Identity::generate(&ClusterKey::generate().unwrap()).unwrap();
    let years_8000 = 8_000 * 365 * 86_400;
    for seconds in [0, 1, 86_400, 1 << 30, years_8000] {
        let now = UnixTime::since_unix_epoch(core::time::Duration::from_secs(seconds));
        check_chain(&identity.certified.cert, &identity.roots, now)
            .unwrap_or_else(|error| panic!("{seconds}: {error}"));
    }
}

fn copy_of(key: &KeyPair) -> KeyPair {
    let der = PrivatePkcs8KeyDer::from(key.serialize_der());
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

/// A series of authorities, each below the one before. Returns the last one and the chain above it, without the root.
fn below(
    root: &Pki,
    count: usize,
    path_length: Option<u8>,
) -> (CertificateParams, KeyPair, Vec<CertificateDer<'static>>) {
    let authority = |number: usize| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("authority {number}"));
        params.is_ca =
            IsCa::Ca(path_length.map_or(rcgen::BasicConstraints::Unconstrained, rcgen::BasicConstraints::Constrained));
        params
    };
    let (mut issuer, mut issuer_key) = (root.params.clone(), copy_of(&root.key));
    let mut chain = Vec::new();
    for number in 0..count {
        let (params, key) = (authority(number), KeyPair::generate().unwrap());
        let certificate = params.signed_by(&key, &rcgen::Issuer::from_params(&issuer, &issuer_key)).unwrap();
        chain.insert(0, certificate.der().clone());
        (issuer, issuer_key) = (params, key);
    }
    (issuer, issuer_key, chain)
}

fn chain_below(root: &Pki, count: usize, key: &KeyPair) -> Vec<CertificateDer<'static>> {
    let (params, issuer_key, mut chain) = below(root, count, None);
    let mut leaf = CertificateParams::new([SERVER_NAME.to_owned()]).unwrap();
    leaf.extended_key_usages = BOTH.to_vec();
    let leaf = leaf.signed_by(key, &rcgen::Issuer::from_params(&params, &issuer_key)).unwrap();
    chain.insert(0, leaf.der().clone());
    chain
}

/// A root that allows `path_length` certificates below it.
fn constrained(path_length: u8) -> Pki {
    let mut root = pki("our authority");
    root.params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(path_length));
    root.root = root.params.self_signed(&root.key).unwrap().der().clone();
    root
}

#[test]
fn the_path_length_of_a_root_holds_for_the_chains_below_it() {
    let key = KeyPair::generate().unwrap();
    for (allowed, below, accepted) in [(0, 0, true), (0, 1, false), (1, 1, true), (1, 2, false), (3, 3, true)] {
        let root = constrained(allowed);
        let chain = chain_below(&root, below, &key);
        let made = Identity::from_pki(chain, private(&key), vec![root.root.clone()]);
        assert_eq!(made.is_ok(), accepted, "{below} below a root that allows {allowed}: {made:?}");
    }
    let root = pki("our authority");
    let free = Identity::from_pki(chain_below(&root, 3, &key), private(&key), vec![root.root.clone()]);
    assert!(free.is_ok(), "{free:?}");
    let root = constrained(0);
    let error = Identity::from_pki(chain_below(&root, 1, &key), private(&key), vec![root.root.clone()]).unwrap_err();
    assert!(error.to_string().contains("path length allows"), "{error}");
}

#[test]
fn a_peer_with_a_chain_over_the_documented_length_is_rejected() {
    let cluster = ClusterKey::generate().unwrap();
    let (own, peer) = (Identity::generate(&cluster).unwrap(), Identity::generate(&cluster).unwrap());
    let rest = [peer.certified.cert.clone(), vec![own.certified.cert[0].clone(); CHAIN_CERTIFICATES_MAX]].concat();
    assert!(own.trusts(&rest[..CHAIN_CERTIFICATES_MAX]));
    assert!(!own.trusts(&rest[..CHAIN_CERTIFICATES_MAX + 1]));
    // A holder of the cluster key cannot represent others by its own authority either.
    let authority = cluster.authority().unwrap();
    let (below, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "below");
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let intermediate = authority.issue(params.clone(), &below).unwrap();
    let mut leaf = CertificateParams::new([SERVER_NAME.to_owned()]).unwrap();
    leaf.extended_key_usages = BOTH.to_vec();
    let leaf = leaf.signed_by(&key, &rcgen::Issuer::from_params(&params, &below)).unwrap().der().clone();
    assert!(!own.trusts(&[leaf, intermediate]));
}
