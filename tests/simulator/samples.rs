//! Content to try things with: the artifacts of the guide, and bytes that no compression shrinks.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{Artifact, Simulator};

pub const LARGE_LAYER: usize = 64 * 1024 * 1024;
const BLOCK: usize = 8 * 1024 * 1024;
const OCTETS: &str = "application/octet-stream";

/// What `--seed-demo` puts in.
pub fn seed_demo(simulator: &Simulator) {
    let config = Bytes::from_static(b"{\n  \"environment\": \"production\",\n  \"replicas\": 3\n}\n");
    let json = "application/json";
    simulator.push_artifact("samples/config", "v1", &[("config.json", json, config.clone())]);
    let readme = Bytes::from_static(b"myapp: pulled through larder.\n");
    let files = [("config.json", json, config.clone()), ("readme.txt", "text/plain", readme)];
    simulator.push_artifact("samples/myapp", "v1", &files);
    let chart = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
    simulator.push_artifact("samples/helm-chart", "v1", &[("mychart-0.1.0.tgz", chart, helm_chart("A chart to pull"))]);
    simulator.push_artifact("configs/app", "prod", &[("app.json", json, config)]);
    seed_blob(simulator, "samples/layers", "v1", LARGE_LAYER);
}

/// An artifact with one layer of so many incompressible bytes, the same for the same repository, tag and size.
pub fn seed_blob(simulator: &Simulator, repository: &str, tag: &str, size: usize) -> Artifact {
    let seed = format!("{repository}:{tag}:{size}")
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    simulator.push_artifact(repository, tag, &[("layer.bin", OCTETS, incompressible(seed, size))])
}

/// Seeded bytes (xorshift) that repeat only beyond the windows of common compressors, shifted each time: cheap to make
/// even without optimisation, and no two places look alike at the same alignment.
pub fn incompressible(seed: u64, size: usize) -> Bytes {
    let mut state = seed | 1;
    let mut block = vec![0; BLOCK.min(size.next_multiple_of(8))];
    for word in block.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    let mut bytes = BytesMut::with_capacity(size + block.len());
    let mut shift = 0;
    while bytes.len() < size {
        bytes.put_slice(&block[shift..]);
        bytes.put_slice(&block[..shift]);
        shift = (shift + 1_000_003) % block.len();
    }
    bytes.truncate(size);
    bytes.freeze()
}

/// A chart that Helm can read: a gzip of stored blocks around a tar.
pub fn helm_chart(description: &str) -> Bytes {
    let chart = format!(
        "apiVersion: v2\nname: mychart\ndescription: {description}\ntype: application\nversion: 0.1.0\nappVersion: \"1.0\"\n"
    );
    let values = "replicaCount: 1\n";
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\ndata:\n  replicas: \"{{ .Values.replicaCount }}\"\n";
    let files = [
        ("mychart/Chart.yaml", &*chart),
        ("mychart/values.yaml", values),
        ("mychart/templates/configmap.yaml", template),
    ];
    gzip_stored(&tar(files.map(|(name, content)| (name, content.as_bytes()))))
}

/// A tar of ordinary files, as a container image's layer is one.
pub fn tar<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Bytes {
    let mut tar = Vec::new();
    for (name, content) in files {
        tar_entry(&mut tar, name, content);
    }
    tar.resize(tar.len() + 1024, 0);
    tar.into()
}

fn tar_entry(tar: &mut Vec<u8>, name: &str, content: &[u8]) {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", content.len()));
    put(136, "14520000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend_from_slice(&header);
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

fn gzip_stored(content: &[u8]) -> Bytes {
    let mut out = BytesMut::from(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255][..]);
    let mut blocks = content.chunks(0xffff).peekable();
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out.put_u8(u8::from(blocks.peek().is_none()));
        out.put_u16_le(length);
        out.put_u16_le(!length);
        out.put_slice(block);
    }
    out.put_u32_le(crc32(content));
    out.put_u32_le(u32::try_from(content.len()).unwrap_or(u32::MAX));
    out.freeze()
}

fn crc32(content: &[u8]) -> u32 {
    !content.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}
