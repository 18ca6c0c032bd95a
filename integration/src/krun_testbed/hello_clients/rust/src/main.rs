//! hello ADDRESS NAME plain|grease: sends rustls' ClientHello to an address, and waits for the end.

use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::{EchGreaseConfig, EchMode};
use rustls::crypto::aws_lc_rs;
use rustls::crypto::hpke::Hpke;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().collect();
    let [_, address, name, kind] = words.as_slice() else {
        return Err("usage: hello ADDRESS NAME plain|grease".into());
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = if kind == "grease" {
        // An encrypted hello that is none (RFC 9849, GREASE ECH), as browsers send to whoever publishes no key.
        let suite: &'static dyn Hpke = aws_lc_rs::hpke::ALL_SUPPORTED_SUITES[0];
        let (key, _) = suite.generate_key_pair()?;
        builder.with_ech(EchMode::from(EchGreaseConfig::new(suite, key)))?
    } else {
        builder.with_safe_default_protocol_versions()?
    };
    let mut config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut connection = ClientConnection::new(Arc::new(config), ServerName::try_from(name.clone())?)?;
    let mut stream = TcpStream::connect(address)?;
    while connection.wants_write() {
        connection.write_tls(&mut stream)?;
    }
    let mut rest = [0; 1];
    let _ = stream.read(&mut rest)?;
    Ok(())
}
