use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;

use super::*;
use crate::cluster_key::ClusterKey;

#[test]
fn configurations_allow_tls_1_3_only_and_no_resumption() {
    let identity = Identity::generate(&ClusterKey::generate().unwrap()).unwrap();
    let server = server_config(&identity).unwrap();
    let client = client_config(&identity).unwrap();
    assert_eq!(server.alpn_protocols, [b"cloudy".to_vec()]);
    assert_eq!(client.alpn_protocols, server.alpn_protocols);
    assert_eq!((server.send_tls13_tickets, server.max_early_data_size), (0, 0));
    assert!(!server.session_storage.can_cache());
    assert!(!client.enable_early_data);
    for provider in [server.crypto_provider(), client.crypto_provider()] {
        assert_eq!(provider.cipher_suites[0], TLS13_AES_128_GCM_SHA256);
        assert!(provider.cipher_suites.iter().all(|suite| suite.tls13().is_some()));
    }
}
