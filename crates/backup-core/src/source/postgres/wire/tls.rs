//! TLS by libpq's rules: `prefer` and `require` encrypt and ask for no name, `verify-ca` checks the chain, `verify-full`
//! the chain and the name (`options` turns `require` with an authority into `verify-ca`, as libpq does). The authorities
//! are those of `sslrootcert` and no others; without it, the public ones.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::source::postgres::options::{ConnectOptions, SslMode};

/// Turns a connection into one inside TLS.
pub(super) async fn handshake(tcp: TcpStream, to: &ConnectOptions) -> Result<TlsStream<TcpStream>, sqlx::Error> {
    let config = config(to).await?;
    let name = ServerName::try_from(to.host().to_owned()).map_err(tls)?;
    Ok(TlsConnector::from(Arc::new(config)).connect(name, tcp).await?)
}

fn tls(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::Tls(error.into())
}

async fn config(to: &ConnectOptions) -> Result<ClientConfig, sqlx::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(tls)?;
    let lenient = |chain| Arc::new(Lenient { chain, provider: provider.clone() });
    let builder = match to.ssl_mode() {
        SslMode::VerifyFull => builder.with_webpki_verifier(chain(to, &provider).await?),
        SslMode::VerifyCa => {
            builder.dangerous().with_custom_certificate_verifier(lenient(Some(chain(to, &provider).await?)))
        }
        SslMode::Disable | SslMode::Allow | SslMode::Prefer | SslMode::Require => {
            builder.dangerous().with_custom_certificate_verifier(lenient(None))
        }
    };
    match (file(to, "sslcert").await?, file(to, "sslkey").await?) {
        (Some(certificates), Some(key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&certificates).collect();
            let key = PrivateKeyDer::from_pem_slice(&key).map_err(tls)?;
            builder.with_client_auth_cert(chain.map_err(tls)?, key).map_err(tls)
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(tls("`sslcert` and `sslkey` are given together or not at all")),
    }
}

/// Checks a certificate against the authorities, and its name.
async fn chain(to: &ConnectOptions, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, sqlx::Error> {
    let mut roots = RootCertStore::empty();
    match file(to, "sslrootcert").await? {
        // A public authority signs for anybody: with the name unchecked, beside a private one it would undo it.
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                roots.add(certificate.map_err(tls)?).map_err(tls)?;
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    if roots.is_empty() {
        return Err(tls("the file of `sslrootcert` holds no certificate"));
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().map_err(tls)
}

async fn file(to: &ConnectOptions, key: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
    match to.ssl_file(key) {
        Some(path) => match tokio::fs::read(path).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => Err(tls(format!("cannot read the file of `{key}`, `{path}`: {error}"))),
        },
        None => Ok(None),
    }
}

/// Trusts less strictly than rustls by itself: with a chain, whatever name it is for; without one, whoever answers.
#[derive(Debug)]
struct Lenient {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
