//! The issuer's key and the file that gateways verify with, in the data directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use proto_wire_token::{IssuerKey, KeyError, Verifier};

/// Held by the backend alone: whoever reads it can be any user.
pub const ISSUER: &str = "issuer.pem";
/// Public keys, what gateways read.
pub const VERIFY: &str = "verify.pem";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("{path}: {cause}; check that the data directory is writable")]
    Io { path: PathBuf, cause: io::Error },
    #[error("{path}: {cause}; put the right key back, or remove the file to make a new one (all tokens end)")]
    Key { path: PathBuf, cause: KeyError },
    #[error(
        "{path} does not hold the public key of issuer.pem: gateways would refuse every token; remove it to have it \
         written again"
    )]
    Foreign { path: PathBuf },
}

/// Reads the issuer's key from `dir`, or makes it with the file for gateways.
pub fn open(dir: &Path) -> Result<IssuerKey, KeysError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |cause| KeysError::Io { path, cause }
    };
    DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(failed(dir))?;
    // Its name too: a key that is gone after a power cut ends all tokens.
    dir.parent().map_or(Ok(()), sync_directory).map_err(failed(dir))?;
    let (issuer, verify) = (dir.join(ISSUER), dir.join(VERIFY));
    let key = match fs::read_to_string(&issuer) {
        Ok(text) => {
            IssuerKey::from_pem(&text).map_err(|cause| KeysError::Key { path: issuer.clone(), cause })?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = IssuerKey::generate();
            write(&issuer, &key.to_pem(), 0o600).map_err(failed(&issuer))?;
            // What an older key had published is worth nothing now.
            write(&verify, &key.public_pem(), 0o644).map_err(failed(&verify))?;
            key
        }
        Err(cause) => return Err(KeysError::Io { path: issuer, cause }),
    };
    match fs::read_to_string(&verify) {
        Ok(text) => {
            Verifier::from_pems(&[&text]).map_err(|cause| KeysError::Key { path: verify.clone(), cause })?;
            if !text.contains(key.public_pem().trim()) {
                return Err(KeysError::Foreign { path: verify });
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            write(&verify, &key.public_pem(), 0o644).map_err(failed(&verify))?;
        }
        Err(cause) => return Err(KeysError::Io { path: verify, cause }),
    }
    Ok(key)
}

/// All of it or nothing, also across a power cut.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), sync_directory)
}

fn sync_directory(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("moorgate-keys-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn keys_are_made_once_and_only_the_owner_reads_the_issuers() {
        let dir = dir("made");
        let first = open(&dir).expect("made").public_pem();
        assert_eq!(open(&dir).expect("read").public_pem(), first);
        let mode = fs::metadata(dir.join(ISSUER)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::remove_file(dir.join(VERIFY)).expect("removed");
        open(&dir).expect("written again");
        assert_eq!(fs::read_to_string(dir.join(VERIFY)).expect("there"), first);
        fs::remove_dir_all(dir).expect("removed");
    }

    #[test]
    fn a_damaged_or_a_foreign_key_is_told() {
        let dir = dir("bad");
        open(&dir).expect("made");
        fs::write(dir.join(VERIFY), IssuerKey::generate().public_pem()).expect("written");
        assert!(matches!(open(&dir), Err(KeysError::Foreign { .. })));
        fs::write(dir.join(ISSUER), "no key").expect("written");
        assert!(matches!(open(&dir), Err(KeysError::Key { .. })));
        fs::remove_dir_all(dir).expect("removed");
    }
}
