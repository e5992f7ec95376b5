//! An identity of another public key infrastructure, from files.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{Identity, IdentityError};
use crate::files::{self, WrongRights};

/// Maximum size of a file.
const PEM_FILE_BYTES_MAX: u64 = 1 << 20;

/// The reason for which files give no identity.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PemError {
    /// A file cannot be read.
    #[error("cannot read the {what} {} ({cause}); {}", path.display(), files::remedy(cause))]
    Read {
        /// The purpose of the file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: std::io::Error,
    },
    /// A file is no regular file, or too large.
    #[error("the {what} {} is no regular file of at most 1 MiB; name a PEM file", path.display())]
    NotPem {
        /// The purpose of the file.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Other users have rights to the private key.
    #[error("other users can read or replace the private key {}; give it to its owner only: chmod 600", path.display())]
    LooseRights {
        /// The file.
        path: PathBuf,
    },
    /// A file has no PEM section of the kind.
    #[error("the {what} {} has no readable PEM section of that kind ({cause}); name another file", path.display())]
    Content {
        /// The purpose of the file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: String,
    },
    /// The content cannot be used together.
    #[error("{}, {} and {}: {cause}", cert.display(), key.display(), ca.display())]
    Identity {
        /// The file of the chain.
        cert: PathBuf,
        /// The file of the private key.
        key: PathBuf,
        /// The file of the roots.
        ca: PathBuf,
        /// The cause.
        cause: Box<IdentityError>,
    },
}

impl Identity {
    /// Reads an identity of another public key infrastructure from PEM files, as [`from_pki`](Self::from_pki): the chain
    /// that starts with this node's certificate, its private key, and the trusted roots. Only the owner of the key's
    /// file, and a group of this process, may have rights to it. Waits for the disk.
    ///
    /// # Errors
    /// The file that cannot be used, with the cause.
    pub fn from_pem_files(cert: &Path, key: &Path, ca: &Path) -> Result<Self, PemError> {
        let chain = certificates("certificate", cert)?;
        let what = "private key";
        let secret = read(what, key, true)?;
        let private_key = PrivateKeyDer::from_pem_slice(&secret).map_err(|cause| content(what, key, cause))?;
        let roots = certificates("authority's certificate", ca)?;
        Self::from_pki(chain, private_key, roots).map_err(|cause| PemError::Identity {
            cert: cert.to_owned(),
            key: key.to_owned(),
            ca: ca.to_owned(),
            cause: Box::new(cause),
        })
    }
}

fn content(what: &'static str, path: &Path, cause: impl ToString) -> PemError {
    PemError::Content { what, path: path.to_owned(), cause: cause.to_string() }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let text = read(what, path, false)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|cause| content(what, path, cause))?;
    if found.is_empty() { Err(content(what, path, "it has none")) } else { Ok(found) }
}

fn read(what: &'static str, path: &Path, is_secret: bool) -> Result<Zeroizing<Vec<u8>>, PemError> {
    let failed = |cause| PemError::Read { what, path: path.to_owned(), cause };
    let not_pem = || PemError::NotPem { what, path: path.to_owned() };
    let file = files::open_regular(path, OpenOptions::new().read(true)).map_err(failed)?.ok_or_else(not_pem)?;
    if is_secret && has_wrong_rights(&file).map_err(failed)? {
        return Err(PemError::LooseRights { path: path.to_owned() });
    }
    let length = file.metadata().map_err(failed)?.len();
    if length > PEM_FILE_BYTES_MAX {
        return Err(not_pem());
    }
    // Allocated in full size: growing would leave copies of a secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length as usize + 1));
    file.take(length).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn has_wrong_rights(file: &File) -> std::io::Result<bool> {
    let wrong = files::wrong_rights(file, files::GROUP_READS_AND_WRITES, false)?;
    Ok(matches!(wrong, Some(WrongRights::OtherOwner { .. } | WrongRights::Loose { .. })))
}
