//! Lists of images in the forms that people have them, known by their content and not by their name: what is taken, and every text that
//! looked like an image and was not.
//!
//! A form is tried only if something in the text says that it is this one; what is left is a plain list, a reference a line.

mod chart;
mod dockerfile;
mod file;
mod looks;
mod plain;
mod yaml;

pub use file::{read_file, read_stream};

use std::collections::{BTreeMap, BTreeSet};

/// What a list of references, one a line, is taken for.
pub const PLAIN: &str = "plain list";
/// The longest list that is read.
pub const LONGEST: usize = 64 << 20;
/// References of one list.
const MOST: usize = 200_000;

/// What a list says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// What the list was taken for.
    pub kind: &'static str,
    /// References with their registry, sorted.
    pub references: BTreeSet<String>,
    /// Texts that looked like an image and were not taken, each with the reason.
    pub left: BTreeSet<String>,
}

impl Reading {
    fn of(kind: &'static str) -> Self {
        Self { kind, ..Self::default() }
    }

    /// Takes a text that stands where an image stands.
    fn take(&mut self, text: &str) {
        let text = text.trim();
        if text.is_empty() || text == "scratch" {
            return;
        }
        if self.references.len() >= MOST {
            self.left.insert(format!("{text}: more than {MOST} references are in the list"));
        } else if let Some(reference) = looks::reference(text) {
            self.references.insert(reference);
        } else if text.contains("{{") {
            self.left.insert(format!("{text}: a template; render it first, as with helm template | larder warm -"));
        } else if text.contains('$') {
            self.left.insert(format!("{text}: a variable without a value"));
        } else {
            self.left.insert(format!("{text}: no reference"));
        }
    }
}

/// Reads a list. `variable` gives the environment's variables, as Compose uses them.
#[must_use]
pub fn read(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Reading {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let first = text.trim_start();
    if first.starts_with(['{', '['])
        && let Some(reading) = yaml::read_json(text, variable)
    {
        return reading;
    }
    if dockerfile::is_one(text) {
        return dockerfile::read(text);
    }
    if looks::has_bicep(text) {
        return plain::bicep(text, &BTreeMap::new());
    }
    yaml::read(text, variable).unwrap_or_else(|| plain::read(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> (&'static str, Vec<String>) {
        let variable = |name: &str| (name == "TAG").then(|| "7".to_owned());
        let reading = read(text, &variable);
        (reading.kind, reading.references.into_iter().collect())
    }

    #[test]
    fn plain_lists_mappings_and_comments() {
        let text = "# base\nnginx\nr.io/a:v1   # why\n\nr.io/b@sha256:0000000000000000000000000000000000000000000000000000000000000000=far.io/b:v1\n";
        let (kind, references) = taken(text);
        assert_eq!(kind, "plain list");
        assert_eq!(references[0], "docker.io/library/nginx:latest");
        assert_eq!(references[1], "r.io/a:v1");
        assert!(references[2].starts_with("r.io/b@sha256:"), "{references:?}");
        let reading = read("r.io/a:v1\nnot an image\n", &|_| None);
        assert_eq!((reading.references.len(), reading.left.len()), (1, 1));
    }

    #[test]
    fn kubernetes_at_any_depth_in_any_document() {
        let text = "
apiVersion: apps/v1
kind: Deployment
spec: {template: {spec: {initContainers: [{name: i, image: 'r.io/init:1'}], containers: [{name: a, image: r.io/app:1}]}}}
---
apiVersion: example.org/v1
kind: Custom
spec:
  image: r.io/custom:2
  volumes: [{image: {reference: r.io/data:3}}]
  template: '{{ .Values.image }}'
";
        let (kind, references) = taken(text);
        assert_eq!(kind, "Kubernetes manifests");
        assert_eq!(references, ["r.io/app:1", "r.io/custom:2", "r.io/data:3", "r.io/init:1"]);
    }

    #[test]
    fn charts_and_their_annotations() {
        let text = "
apiVersion: v2
name: chart
version: 1.0.0
annotations:
  artifacthub.io/images: |
    - name: app
      image: r.io/app:1
  images: |
    - name: sub
      image: docker.io/bitnami/sub:2
dependencies:
  - {name: common, version: 2.x.x, repository: 'oci://r.io/charts'}
";
        let (kind, references) = taken(text);
        assert_eq!(kind, "Helm chart");
        assert_eq!(references, ["docker.io/bitnami/sub:2", "r.io/app:1"]);
    }

    #[test]
    fn compose_with_variables() {
        let text = "
services:
  a: {image: 'r.io/a:${TAG}'}
  b: {image: 'r.io/b:${NONE:-1}'}
  c: {image: 'r.io/c:${NONE}'}
";
        let variable = |name: &str| (name == "TAG").then(|| "7".to_owned());
        let reading = read(text, &variable);
        assert_eq!(reading.kind, "Compose file");
        assert_eq!(reading.references.iter().collect::<Vec<_>>(), ["r.io/a:7", "r.io/b:1"]);
        assert_eq!(reading.left.len(), 1, "{:?}", reading.left);
    }

    #[test]
    fn dockerfiles_without_their_stages() {
        let text = "# syntax=docker/dockerfile:1\nARG BASE=r.io/base:1\nFROM --platform=$BUILDPLATFORM ${BASE} AS build\nRUN --mount=from=r.io/tools:2,target=/t true\nFROM scratch\nCOPY --from=build /a /a\nCOPY --from=r.io/other:3 /b /b\n";
        let (kind, references) = taken(text);
        assert_eq!(kind, "Dockerfile");
        assert_eq!(references, ["docker.io/docker/dockerfile:1", "r.io/base:1", "r.io/other:3", "r.io/tools:2"]);
    }

    #[test]
    fn lists_of_other_tools() {
        let skopeo = "r.io:\n  images:\n    app: ['1', '2']\n    all: []\n  images-by-tag-regex:\n    app: ^v\n";
        let (kind, references) = taken(skopeo);
        assert_eq!(
            (kind, references.as_slice()),
            ("skopeo sync list", &["r.io/app:1".to_owned(), "r.io/app:2".to_owned()][..])
        );
        let hauler = "apiVersion: content.hauler.cattle.io/v1\nkind: Images\nspec:\n  images:\n    - name: r.io/a:1\n";
        assert_eq!(taken(hauler), ("Hauler manifest", vec!["r.io/a:1".to_owned()]));
        let zarf = "kind: ZarfPackageConfig\ncomponents:\n  - images: [r.io/a:1]\n    charts: [{url: 'oci://r.io/charts/x', version: 1.0.0}]\n";
        assert_eq!(taken(zarf), ("Zarf package", vec!["r.io/a:1".to_owned(), "r.io/charts/x:1.0.0".to_owned()]));
        let imageset = "kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n  additionalImages: [{name: r.io/a:1}]\n";
        assert_eq!(taken(imageset), ("imageset configuration", vec!["r.io/a:1".to_owned()]));
        let lock = "apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n- image: r.io/a@sha256:0000000000000000000000000000000000000000000000000000000000000000\n";
        let (kind, references) = taken(lock);
        assert_eq!((kind, references.len()), ("imgpkg lock", 1));
        let flux = "apiVersion: source.toolkit.fluxcd.io/v1\nkind: OCIRepository\nspec: {url: 'oci://r.io/charts/x', ref: {tag: '1.2'}}\n";
        assert_eq!(taken(flux), ("Kubernetes manifests", vec!["r.io/charts/x:1.2".to_owned()]));
        let own = r#"[{"reference":"r.io/a:1","digest":"x"}]"#;
        assert_eq!(taken(own), ("larder list", vec!["r.io/a:1".to_owned()]));
        let container = "{\n  // a comment\n  \"image\": \"mcr.microsoft.com/devcontainers/base:1\",\n  \"features\": {\"ghcr.io/devcontainers/features/node:1\": {}},\n}";
        assert_eq!(taken(container).0, "devcontainer.json");
        assert_eq!(taken(container).1.len(), 2);
        let bicep = "module a 'br:myacr.azurecr.io/bicep/a:v1' = {}\nmodule b 'br/public:avm/res/x:0.1' = {}\nmodule c 'br/team:x:1' = {}\n";
        let reading = read(bicep, &|_| None);
        assert_eq!(reading.kind, "Bicep file");
        let references: Vec<_> = reading.references.into_iter().collect();
        assert_eq!(references, ["mcr.microsoft.com/bicep/avm/res/x:0.1", "myacr.azurecr.io/bicep/a:v1"]);
        assert_eq!(reading.left.len(), 1);
    }

    #[test]
    fn nothing_makes_it_fail() {
        for text in [
            "",
            "\0",
            "{",
            "[1,2",
            "a: &a [*a]",
            "- - - -",
            "%YAML 9",
            "FROM",
            "FROM $",
            "br:",
            &"[".repeat(100_000),
            &"a: {".repeat(50_000),
        ] {
            let _ = read(text, &|_| None);
        }
    }
}
