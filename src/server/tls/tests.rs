use super::*;
use rcgen::{CertificateParams, KeyPair};
use std::fs;
use tempfile::TempDir;
use tokio::time::sleep;

/// A self-signed certificate for `name` that ends in so many days.
fn write(folder: &TempDir, name: &str, days: i64) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(3600)).into();
    params.not_after = (now + Duration::from_secs(u64::try_from(days).unwrap() * 86_400)).into();
    let key = KeyPair::generate().unwrap();
    fs::write(folder.path().join("tls.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(folder.path().join("tls.key"), key.serialize_pem()).unwrap();
}

fn settings(folder: &TempDir) -> TlsSettings {
    let path = |name: &str| folder.path().join(name);
    TlsSettings { certificate_file: path("tls.crt"), key_file: path("tls.key"), client_ca_file: None }
}

fn started(folder: &TempDir) -> (Tls, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new());
    let tls = Tls::load(&settings(folder), Arc::clone(&metrics)).unwrap();
    tokio::spawn(tls.clone().follow());
    (tls, metrics)
}

fn expiry(metrics: &Metrics) -> i64 {
    metrics.tls_certificate_expiry.with_label_values(&[] as &[&str]).get()
}

#[tokio::test(start_paused = true)]
async fn changed_files_are_taken_over_within_ten_seconds() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "one.lan", 90);
    let (tls, metrics) = started(&folder);
    let before = expiry(&metrics);
    write(&folder, "two.lan", 180);
    assert_eq!(tls.state().names, ["one.lan"]);
    sleep(LOOK + Duration::from_secs(1)).await;
    let state = tls.state();
    assert_eq!((state.names, state.problem), (vec!["two.lan".to_owned()], None));
    assert_eq!((expiry(&metrics) - before + 43_200) / 86_400, 90);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_used_leaves_the_old_one_and_is_said_when_it_is_seen_twice() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "one.lan", 90);
    let (tls, _) = started(&folder);
    let key = fs::read(folder.path().join("tls.key")).unwrap();
    write(&folder, "two.lan", 90);
    fs::write(folder.path().join("tls.key"), &key).unwrap();
    sleep(LOOK + Duration::from_secs(1)).await;
    assert_eq!(tls.state().problem, None, "the other file may be on its way");
    sleep(LOOK).await;
    let state = tls.state();
    assert_eq!(state.names, ["one.lan"]);
    let problem = state.problem.unwrap();
    assert!(problem.starts_with("[server.tls] key_file: ") && problem.contains("is not the key"), "{problem}");
    fs::remove_file(folder.path().join("tls.crt")).unwrap();
    sleep(LOOK * 3).await;
    assert!(tls.state().problem.unwrap().contains("cannot read"), "another problem is said too");
    write(&folder, "three.lan", 90);
    sleep(LOOK * 2).await;
    let state = tls.state();
    assert_eq!((state.names, state.problem), (vec!["three.lan".to_owned()], None));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_certificate_is_announced_two_weeks_before_or_in_its_last_quarter_and_once_a_day() {
    let folder = tempfile::tempdir().unwrap();
    for (days, near) in [(90, false), (13, true), (15, false)] {
        write(&folder, "one.lan", days);
        // Of a certificate of 13 days, ten are left before the last quarter.
        let tls = Tls::load(&settings(&folder), Arc::new(Metrics::new())).unwrap();
        tls.0.current.write().identity.lifetime = Duration::from_secs(90 * 86_400);
        let mut seen = Seen::default();
        tls.remind(&mut seen);
        assert_eq!(seen.reminded.is_some(), near, "{days}");
        if near {
            let first = seen.reminded;
            sleep(REMIND.saturating_sub(Duration::from_secs(1))).await;
            tls.remind(&mut seen);
            assert_eq!(seen.reminded, first);
            sleep(Duration::from_secs(2)).await;
            tls.remind(&mut seen);
            assert_ne!(seen.reminded, first);
        }
    }
}
