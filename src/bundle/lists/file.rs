//! Lists as files: their bytes, whatever they are called, and what stands beside them.

use super::{LONGEST, Reading, chart, plain};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error, ErrorKind, Read};
use std::path::Path;

/// What an archive that gzip made begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// The longest `bicepconfig.json`.
const LONGEST_CONFIG: u64 = 1 << 20;

/// Reads a list, with the aliases of the `bicepconfig.json` that holds for it.
pub fn read_file(path: &Path, variable: &dyn Fn(&str) -> Option<String>) -> Result<Reading, Error> {
    read_from(File::open(path)?, variable, || aliases(path))
}

/// Reads a list from a stream.
pub fn read_stream(stream: impl Read, variable: &dyn Fn(&str) -> Option<String>) -> Result<Reading, Error> {
    read_from(stream, variable, BTreeMap::new)
}

fn read_from(
    stream: impl Read,
    variable: &dyn Fn(&str) -> Option<String>,
    aliases: impl FnOnce() -> BTreeMap<String, String>,
) -> Result<Reading, Error> {
    let wrong = |text: &str| Error::new(ErrorKind::InvalidData, text);
    let mut bytes = Vec::new();
    stream.take(LONGEST as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > LONGEST {
        return Err(wrong("it is longer than 64 MiB: that is no list"));
    }
    if bytes.starts_with(&GZIP) {
        return chart::read(&bytes, variable);
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong("it is no text in UTF-8 and no chart"))?;
    if super::looks::has_bicep(&text) {
        return Ok(plain::bicep(&text, &aliases()));
    }
    Ok(super::read(&text, variable))
}

/// The aliases of the nearest `bicepconfig.json` at or above the file, as Bicep itself finds it.
fn aliases(path: &Path) -> BTreeMap<String, String> {
    let Ok(path) = path.canonicalize() else { return BTreeMap::new() };
    let found = path.ancestors().skip(1).map(|folder| folder.join("bicepconfig.json")).find(|file| file.is_file());
    let mut text = String::new();
    let read = found.and_then(|file| File::open(file).ok()?.take(LONGEST_CONFIG).read_to_string(&mut text).ok());
    read.map(|_| plain::bicep_aliases(&text)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn bicep_modules_by_the_aliases_of_the_nearest_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        let config = r#"{ // of the team
            "moduleAliases": {"br": {"team": {"registry": "r.io", "modulePath": "bicep/modules"}, "bare": {"registry": "r.io"}}}}"#;
        write("a/bicepconfig.json", config);
        write(
            "a/b/main.bicep",
            "module a 'br/team:net:v1' = {}\nmodule b 'br/bare:x:v2' = {}\nmodule c 'br/other:x:v1' = {}\n",
        );
        let reading = read_file(&folder.path().join("a/b/main.bicep"), &|_| None).unwrap();
        assert_eq!(reading.references.iter().collect::<Vec<_>>(), ["r.io/bicep/modules/net:v1", "r.io/x:v2"]);
        assert_eq!(reading.left.len(), 1, "{:?}", reading.left);
    }

    fn chart(files: &[(&str, &str)]) -> Vec<u8> {
        let mut archive = ::tar::Builder::new(Vec::new());
        for (name, text) in files {
            let mut header = ::tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_cksum();
            archive.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        gzip(&archive.into_inner().unwrap())
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_packed_chart_with_its_annotations_locks_and_charts_below() {
        let packed = chart(&[
            (
                "app/Chart.yaml",
                "apiVersion: v2\nname: app\nversion: 1.0.0\nannotations:\n  images: |\n    - image: r.io/app:1\n",
            ),
            (
                "app/Chart.lock",
                "dependencies:\n- {name: common, version: 2.1.0, repository: 'oci://r.io/charts'}\ndigest: x\n",
            ),
            ("app/charts/sub/Images.lock", "apiVersion: v0\nkind: ImagesLock\nimages:\n- {image: 'r.io/sub:2'}\n"),
            ("app/templates/deployment.yaml", "image: {{ .Values.image }}\n"),
        ]);
        let reading = read_stream(&*packed, &|_| None).unwrap();
        assert_eq!(reading.kind, "packed Helm chart");
        assert_eq!(
            reading.references.iter().collect::<Vec<_>>(),
            ["r.io/app:1", "r.io/charts/common:2.1.0", "r.io/sub:2"]
        );
        assert!(reading.left.iter().any(|left| left.contains("helm template")), "{:?}", reading.left);
    }

    #[test]
    fn what_unpacks_to_more_than_a_list_may_have_is_cut_and_takes_no_memory() {
        let bomb = gzip(&vec![0; LONGEST + (1 << 20)]);
        assert!(bomb.len() < 1 << 20);
        assert!(read_stream(&*bomb, &|_| None).is_err());
        assert!(read_stream(&b"\x1f\x8bno"[..], &|_| None).is_err());
        assert!(read_stream(&[0xff, 0xfe][..], &|_| None).is_err());
    }
}
