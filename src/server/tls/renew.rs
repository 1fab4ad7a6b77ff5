//! A certificate of larder's own authority is made anew by the daemon, as long as the authority's key lies beside it.
//!
//! The server's key stays, so that a single file changes, at once: at no moment do two files not fit each other.

use super::authority::{Authority, CERTIFICATE};
use crate::config::{Certificate, ServerNames, TlsSettings, read_private};
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The files of an authority, beside those of its certificate.
pub(super) const AUTHORITY: &str = "ca.pem";
pub(super) const AUTHORITY_KEY: &str = "ca.key";

/// What is left of a certificate's life when it is made anew.
const EARLY: Duration = Duration::from_secs(30 * 24 * 3600);

/// Makes the certificate anew if it is time and the authority is there. Whether it did; an error is for people. May block.
pub(super) fn renew(settings: &TlsSettings, not_after: SystemTime, now: SystemTime) -> Result<bool, String> {
    debug_assert!(EARLY < CERTIFICATE, "else it would be renewed again and again");
    let file = &settings.certificate_file;
    let folder = file.parent().unwrap_or(Path::new(""));
    let (authority, key) = (folder.join(AUTHORITY), folder.join(AUTHORITY_KEY));
    let is_early = not_after.duration_since(now).is_ok_and(|left| left > EARLY);
    if is_early || !authority.is_file() || !key.is_file() {
        return Ok(false);
    }
    let text = |path: &Path| read_private(path).map_err(|error| error.to_string());
    let (pem, present) = (text(&authority)?, text(file)?);
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).ok();
    let (Some(own), Some(parent)) = (der(&present), der(&pem)) else { return Ok(false) };
    let (Some(own), Some(parent)) = (Certificate::parse(&own), Certificate::parse(&parent)) else { return Ok(false) };
    if own.issuer_der() != parent.subject_der() {
        // Somebody else's certificate, in the same folder.
        return Ok(false);
    }
    let names = ServerNames::parse(own.names())?;
    let authority = Authority::load(&pem, &text(&key)?).map_err(|error| error.to_string())?;
    let key = KeyPair::from_pem(&text(&settings.key_file)?)
        .map_err(|error| format!("{}: {error}", settings.key_file.display()))?;
    let made = authority.issue(&names, &key, now).map_err(|error| error.to_string())?;
    replace(file, &made).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    Ok(true)
}

/// Writes a file beside the other and renames it.
fn replace(path: &Path, content: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let next = path.with_extension("new");
    let mut file = std::fs::File::create(&next)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&next, path)
}

#[cfg(test)]
mod tests {
    use super::super::authority::server_key;
    use super::*;
    use std::fs;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// A folder as `larder tls init` leaves it, made so many days ago.
    fn folder(days: u32) -> (tempfile::TempDir, TlsSettings) {
        let folder = tempfile::tempdir().unwrap();
        let made = SystemTime::now() - DAY * days;
        let names = ServerNames::parse(["myacr.azurecr.io".to_owned()]).unwrap();
        let authority = Authority::create(&names, made).unwrap();
        let key = server_key().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path(AUTHORITY), authority.pem()).unwrap();
        fs::write(path(AUTHORITY_KEY), authority.key_pem()).unwrap();
        fs::write(path("server.pem"), authority.issue(&names, &key, made).unwrap()).unwrap();
        fs::write(path("server.key"), key.serialize_pem()).unwrap();
        let settings =
            TlsSettings { certificate_file: path("server.pem"), key_file: path("server.key"), client_ca_file: None };
        (folder, settings)
    }

    fn end(settings: &TlsSettings) -> SystemTime {
        let pem = fs::read(&settings.certificate_file).unwrap();
        let der = CertificateDer::from_pem_slice(&pem).unwrap();
        let end = Certificate::parse(&der).unwrap().not_after();
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(end).unwrap())
    }

    #[test]
    fn a_certificate_is_made_anew_thirty_days_before_its_end_with_the_same_key_and_names() {
        let now = SystemTime::now();
        let (_folder, settings) = folder(59);
        assert_eq!(renew(&settings, end(&settings), now), Ok(false));
        let (_folder, settings) = folder(61);
        assert_eq!(renew(&settings, end(&settings), now), Ok(true));
        assert!(end(&settings) > now + DAY * 89);
        let identity = crate::config::TlsFiles::read(&settings).unwrap().check(&settings, now).unwrap();
        assert_eq!(identity.names[0], "myacr.azurecr.io");
        assert_eq!(renew(&settings, end(&settings), now), Ok(false));
    }

    #[test]
    fn without_the_authoritys_key_or_under_another_authority_nothing_is_made() {
        let now = SystemTime::now();
        let (place, settings) = folder(80);
        fs::remove_file(place.path().join(AUTHORITY_KEY)).unwrap();
        assert_eq!(renew(&settings, end(&settings), now), Ok(false));
        let (place, settings) = folder(80);
        let names = ServerNames::parse(["other.lan".to_owned()]).unwrap();
        let other = Authority::create(&names, now).unwrap();
        fs::write(place.path().join(AUTHORITY), other.pem()).unwrap();
        fs::write(place.path().join(AUTHORITY_KEY), other.key_pem()).unwrap();
        assert_eq!(renew(&settings, end(&settings), now), Ok(false));
    }

    #[test]
    fn a_key_that_is_not_the_authoritys_changes_nothing_and_says_so() {
        let (place, settings) = folder(80);
        fs::write(place.path().join(AUTHORITY_KEY), server_key().unwrap().serialize_pem()).unwrap();
        let before = fs::read(&settings.certificate_file).unwrap();
        let error = renew(&settings, end(&settings), SystemTime::now()).unwrap_err();
        assert!(error.contains("does not vouch"), "{error}");
        assert_eq!(fs::read(&settings.certificate_file).unwrap(), before);
    }
}
