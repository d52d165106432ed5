//! The folder of certificates and keys.

use super::Problem;
use duraft::{ClusterId, NodeId, TlsOptions, tls_name};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: Duration = Duration::from_secs(86_400);
/// How long the authority is valid.
const AUTHORITY_DAYS: u32 = 3650;

/// Issues certificates.
pub(super) type Authority = Issuer<'static, KeyPair>;

/// See the module documentation.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Folder, Problem> {
        fs::create_dir_all(path).map_err(|source| problem("make the folder", path, source))?;
        Ok(Folder(path.to_owned()))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The authority in the folder, or a new one; and whether it is new.
    pub(super) fn authority(&self) -> Result<(Authority, bool), Problem> {
        let (certificate, key) = (self.path("ca.pem"), self.path("ca.key"));
        match (certificate.exists(), key.exists()) {
            (true, true) => {
                let key = KeyPair::from_pem(&read(&key)?)?;
                // The issuer is known by its name and key; both are as when it was made.
                Ok((Issuer::new(authority_params()?, key), false))
            }
            (false, false) => {
                let pair = KeyPair::generate()?;
                let params = authority_params()?;
                let pem = params.self_signed(&pair)?.pem();
                write(&key, &pair.serialize_pem(), Secret::Yes, false)?;
                write(&certificate, &pem, Secret::No, false)?;
                Ok((Issuer::new(params, pair), true))
            }
            (true, false) => Err(half(&certificate, &key)),
            (false, true) => Err(half(&key, &certificate)),
        }
    }

    pub(super) fn has_node(&self, node: NodeId) -> bool {
        let (certificate, key) = self.of_node(node);
        certificate.exists() && key.exists()
    }

    fn of_node(&self, node: NodeId) -> (PathBuf, PathBuf) {
        let file = |end| self.path(&format!("node-{node}.{end}"));
        (file("pem"), file("key"))
    }

    /// Makes a node's certificate and key, and checks that a node would take them.
    pub(super) fn issue(
        &self,
        authority: &Authority,
        cluster: ClusterId,
        node: NodeId,
        days: u32,
        renew: bool,
    ) -> Result<(), Problem> {
        let mut params = CertificateParams::new([tls_name(cluster, node)])?;
        validity(&mut params, days);
        let name = format!("duraft development node {node}");
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let pair = KeyPair::generate()?;
        let certificate = params.signed_by(&pair, authority)?.pem();
        let (certificate_path, key_path) = self.of_node(node);
        write(&key_path, &pair.serialize_pem(), Secret::Yes, renew)?;
        write(&certificate_path, &certificate, Secret::No, renew)?;
        let made = TlsOptions::from_pem_files(self.path("ca.pem"), certificate_path, key_path)?;
        made.check_own(cluster, node)?;
        Ok(())
    }
}

fn authority_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    validity(&mut params, AUTHORITY_DAYS);
    let name = "duraft development authority";
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// From yesterday on, because clocks differ.
fn validity(params: &mut CertificateParams, days: u32) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = rcgen::date_time_ymd(1970, 1, 1) + now.unwrap_or_default();
    params.not_before = now - DAY;
    params.not_after = now + DAY * days;
}

/// Is a file for its owner only?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Secret {
    Yes,
    No,
}

fn read(path: &Path) -> Result<String, Problem> {
    fs::read_to_string(path).map_err(|source| problem("read", path, source))
}

/// Writes a new file; or, to renew, one beside the old one that then takes its place.
fn write(path: &Path, text: &str, secret: Secret, renew: bool) -> Result<(), Problem> {
    let mut target = path.to_owned();
    if renew {
        target.as_mut_os_string().push(".new");
        // Left behind by a call that did not end.
        let _ = fs::remove_file(&target);
    }
    let mode = match secret {
        Secret::Yes => 0o600,
        Secret::No => 0o644,
    };
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&target);
    let mut file = opened.map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            Problem::Exists(target.display().to_string())
        } else {
            problem("write", &target, error)
        }
    })?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    written.map_err(|source| problem("write", &target, source))?;
    if renew {
        fs::rename(&target, path).map_err(|source| problem("replace", path, source))?;
    }
    Ok(())
}

fn problem(what: &'static str, path: &Path, source: io::Error) -> Problem {
    Problem::File {
        what,
        path: path.display().to_string(),
        source,
    }
}

fn half(path: &Path, other: &Path) -> Problem {
    Problem::HalfAuthority {
        path: path.display().to_string(),
        other: other.display().to_string(),
    }
}
