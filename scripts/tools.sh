# Sourced by scripts/test and benches/run, from the package's folder: gets the programs that they need and the machine lacks.
#
# Debian's packages come by apt-get; Go programs and cargo-deny are built into target/tools/bin, and nothing of the user's is
# changed. LARDER_TOOLS names another folder that has the Go programs already, in the versions below.

TOOLS=${LARDER_TOOLS:-$PWD/target/tools/bin}
export LARDER_TOOLS=$TOOLS
# cargo-deny is built there, whatever folder has the others.
export PATH=$TOOLS:$PWD/target/tools/bin:$PATH

CARGO_DENY=0.20.2
# program, its package for `go install`, its version; the tests name the same versions
GO_TOOLS='
oras        oras.land/oras/cmd/oras                                 v1.3.3
oras-1.1.0  oras.land/oras/cmd/oras                                 v1.1.0
registry    github.com/distribution/distribution/v3/cmd/registry    v3.1.1
crane       github.com/google/go-containerregistry/cmd/crane        v0.21.9
regctl      github.com/regclient/regclient/cmd/regctl               v0.11.5
helm        helm.sh/helm/v3/cmd/helm                                v3.21.4
cosign      github.com/sigstore/cosign/v3/cmd/cosign                v3.1.2
'

section() {
    local now=$SECONDS
    if [ -n "${section_name:-}" ]; then
        printf -- '--- %s: %ss\n' "$section_name" "$((now - section_began))"
    fi
    section_name=${1:-}
    section_began=$now
    if [ -n "$section_name" ]; then printf '\n=== %s\n' "$section_name"; fi
}

fail() {
    printf '\nerror: %s\n' "$*" >&2
    exit 1
}

need_rust() {
    command -v cargo >/dev/null || fail "cargo is not on PATH: install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer"
    local component
    for component in "$@"; do
        cargo "${component#rust}" --version >/dev/null 2>&1 && continue
        command -v rustup >/dev/null || fail "cargo ${component#rust} is missing and so is rustup: install the component $component"
        rustup component add "$component"
    done
}

need_cargo_deny() {
    cargo deny --version >/dev/null 2>&1 && return
    cargo install --locked --root "$PWD/target/tools" "cargo-deny@$CARGO_DENY"
}

# need_packages PROGRAM=PACKAGE...: installs the packages whose program is not there.
need_packages() {
    local pair missing=()
    # Debian keeps servers where an ordinary user's PATH does not look.
    export PATH=$PATH:/usr/sbin:/sbin
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        fail "missing programs, and no apt-get to install them with; on Debian they are the packages: ${missing[*]}"
    local root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || fail "missing programs; as root: apt-get install ${missing[*]}"
        root=(sudo)
        if ! sudo -n true 2>/dev/null && [ ! -t 0 ]; then
            fail "missing programs, and sudo asks for a password here; run: sudo apt-get install ${missing[*]}"
        fi
    fi
    # A registry or a web server that starts with its package would sit on the very ports that people use larder with.
    local policy=/usr/sbin/policy-rc.d made_policy=
    if [ ! -e "$policy" ]; then
        made_policy=yes
        printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
        "${root[@]}" chmod 755 "$policy"
    fi
    local status=0
    { "${root[@]}" apt-get update -q &&
        "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"; } ||
        status=$?
    if [ -n "$made_policy" ]; then "${root[@]}" rm -f "$policy"; fi
    [ "$status" = 0 ] || fail "apt-get could not install: ${missing[*]}"
}

need_go_tools() {
    local program package version
    while read -r program package version; do
        [ -n "$program" ] || continue
        has_go_tool "$program" "$version" && continue
        command -v go >/dev/null ||
            fail "$program $version is missing, and so is go (1.26 or newer), which builds it: $package@$version"
        printf 'building %s %s\n' "$program" "$version"
        install_go_tool "$program" "$package" "$version"
    done <<<"$GO_TOOLS"
}

# The version is the module's, stamped into the binary; what a program prints of itself depends on how it was built.
has_go_tool() {
    [ -x "$TOOLS/$1" ] || return 1
    command -v go >/dev/null || return 0
    go version -m "$TOOLS/$1" | grep -q "^[[:space:]]mod[[:space:]][^[:space:]]*[[:space:]]$2[[:space:]]"
}

install_go_tool() {
    local built
    built=$(mktemp -d)
    CGO_ENABLED=0 GOBIN=$built go install "$2@$3" || fail "go install $2@$3 failed"
    mkdir -p "$TOOLS"
    mv -f "$built/$(basename "$2")" "$TOOLS/$1"
    rmdir "$built"
}
