//! Sealing: plaintext to the bytes that lie in a vault, and back. The only module that holds keys.
//!
//! An object is one zstd frame, age-encrypted to the generation's key, named by the SHA-256 of the result. What makes
//! it safe: the frame is decoded again and compared before it is encrypted, so that a fault of the compressor or of
//! memory is met while the source still exists; [`Sealed`] can be made here only, so that nothing else can enter a vault
//! as an object; the host keeps no secret key after a generation was opened.
//!
//! Opening is strict: the name is compared first, then age's tag, then exactly one frame, whose size is in its header and
//! bounded, and not a byte after it.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod key;

use std::io::{Read as _, Write as _};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::id::{Hash256, ObjectName};

/// Most plaintext that one object holds: 4 MiB.
pub const MAX_PLAIN_BYTES: usize = 4 << 20;

/// Most stored bytes that an object can have: incompressible plaintext, zstd's and age's framing, with room to spare.
pub const MAX_STORED_BYTES: u64 = STORED_BUFFER_BYTES as u64;

/// Largest window that a reader accepts, as a power of two: 8 MiB covers a frame of 4 MiB at any level.
const WINDOW_LOG_MAX: u32 = 23;

/// Room for any sealed object; what an object does not need of it is never touched.
const STORED_BUFFER_BYTES: usize = MAX_PLAIN_BYTES + (MAX_PLAIN_BYTES >> 6) + 4096;

/// A sealed object: the only thing that a vault takes as an object.
///
/// There is no way to make one but sealing:
///
/// ```
/// use backup_core::seal::{Sealer, Sealed};
/// let key: age::x25519::Recipient = age::x25519::Identity::generate().to_public();
/// let sealed: Sealed = Sealer::new(&key.to_string(), 1)?.seal(b"plaintext")?;
/// assert_eq!(sealed.plain_bytes(), 9);
/// # Ok::<(), backup_core::seal::SealError>(())
/// ```
///
/// ```compile_fail
/// use backup_core::seal::{Sealer, Sealed};
/// let key: age::x25519::Recipient = age::x25519::Identity::generate().to_public();
/// let sealed: Sealed = Sealed { name: backup_core::id::Hash256([0; 32]), bytes: b"plaintext".to_vec().into(), plain_bytes: 9 };
/// assert_eq!(sealed.plain_bytes(), 9);
/// # Ok::<(), backup_core::seal::SealError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Sealed {
    name: ObjectName,
    bytes: Bytes,
    plain_bytes: u32,
}

impl Sealed {
    /// The object's name: SHA-256 of [`Sealed::bytes`].
    pub fn name(&self) -> ObjectName {
        self.name
    }

    /// The stored bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Length of the plaintext.
    pub fn plain_bytes(&self) -> u32 {
        self.plain_bytes
    }
}

/// Sealing failed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The generation's public key is not an age recipient.
    #[error("`{key}` is not an age recipient: {reason}")]
    Recipient {
        /// The text.
        key: String,
        /// What age said.
        reason: String,
    },
    /// More plaintext than an object may hold.
    #[error("an object of {plain_bytes} bytes is over the limit")]
    TooLarge {
        /// Its plaintext length.
        plain_bytes: usize,
    },
    /// zstd failed.
    #[error("zstd failed to compress")]
    Compress(#[source] std::io::Error),
    /// The frame, decoded again, was not the plaintext.
    #[error(
        "what was compressed does not decode to the same bytes: this machine's memory or processor is not reliable"
    )]
    NotProved,
    /// age failed.
    #[error("age failed to encrypt: {0}")]
    Encrypt(String),
}

/// Seals for one generation. Cheap to clone; holds a public key only.
#[derive(Clone)]
pub struct Sealer {
    recipient: age::x25519::Recipient,
    level: i32,
    /// As many as seal at once.
    scratch: Arc<Mutex<Vec<Scratch>>>,
    /// As many as are filled, sealed or on their way at once.
    buffers: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// What sealing needs besides its result, kept from one object to the next: megabytes that are allocated and freed for
/// each object, by whichever thread it is, scatter over the allocator's arenas, and the process grows with the source.
struct Scratch {
    compressor: zstd::bulk::Compressor<'static>,
    frame: Vec<u8>,
    proof: Vec<u8>,
}

impl Scratch {
    fn new(level: i32) -> Result<Self, SealError> {
        Ok(Self {
            compressor: zstd::bulk::Compressor::new(level).map_err(SealError::Compress)?,
            frame: Vec::with_capacity(zstd::zstd_safe::compress_bound(MAX_PLAIN_BYTES)),
            proof: Vec::with_capacity(MAX_PLAIN_BYTES),
        })
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer({})", self.recipient)
    }
}

impl Sealer {
    /// Seals to `public_key` (`age1…`) at a zstd `level`.
    pub fn new(public_key: &str, level: i32) -> Result<Self, SealError> {
        let recipient = age::x25519::Recipient::from_str(public_key)
            .map_err(|reason| SealError::Recipient { key: public_key.to_owned(), reason: reason.to_owned() })?;
        Ok(Self { recipient, level, scratch: Arc::default(), buffers: Arc::default() })
    }

    /// Seals a copy of `plain`: compresses, decodes again and compares, encrypts, names. CPU work: call it off the async threads.
    pub fn seal(&self, plain: &[u8]) -> Result<Sealed, SealError> {
        let mut buffer = self.buffer();
        buffer.extend_from_slice(plain);
        self.seal_buffer(buffer)
    }

    /// An empty buffer with room for any object.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        lock(&self.buffers).pop().unwrap_or_else(|| Vec::with_capacity(STORED_BUFFER_BYTES))
    }

    /// Compresses, decodes again and compares, encrypts, names. CPU work: call it off the async threads. `plain` is best
    /// one of [`Sealer::buffer`]: the sealed object takes its place, and goes back there when it was put.
    pub(crate) fn seal_buffer(&self, plain: Vec<u8>) -> Result<Sealed, SealError> {
        let plain_bytes = u32::try_from(plain.len())
            .ok()
            .filter(|_| plain.len() <= MAX_PLAIN_BYTES)
            .ok_or(SealError::TooLarge { plain_bytes: plain.len() })?;
        let scratch = lock(&self.scratch).pop();
        let mut scratch = scratch.map_or_else(|| Scratch::new(self.level), Ok)?;
        let Scratch { compressor, frame, proof } = &mut scratch;
        compressor.compress_to_buffer(&plain, frame).map_err(SealError::Compress)?;
        prove(frame, &plain, proof)?;
        let stored = self.encrypt(frame, plain).map_err(|e| SealError::Encrypt(e.to_string()))?;
        lock(&self.scratch).push(scratch);
        Ok(Sealed { name: Hash256::of(&stored.bytes), bytes: Bytes::from_owner(stored), plain_bytes })
    }

    /// Into `bytes`, in place of what is there.
    fn encrypt(&self, frame: &[u8], mut bytes: Vec<u8>) -> std::io::Result<Stored> {
        let encryptor = age::Encryptor::with_recipients(std::iter::once(&self.recipient as &dyn age::Recipient))
            .map_err(std::io::Error::other)?;
        bytes.clear();
        let mut stored = Stored { bytes, home: self.buffers.clone() };
        let mut writer = encryptor.wrap_output(&mut stored.bytes)?;
        writer.write_all(frame)?;
        writer.finish()?;
        Ok(stored)
    }
}

/// A sealed object's bytes, whose buffer goes home when the last who holds it lets go.
struct Stored {
    bytes: Vec<u8>,
    home: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl AsRef<[u8]> for Stored {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        lock(&self.home).push(bytes);
    }
}

/// Decodes `frame` again into `proof`, and compares.
fn prove(frame: &[u8], plain: &[u8], proof: &mut Vec<u8>) -> Result<(), SealError> {
    match decode_frame(frame, plain.len(), proof) {
        Ok(()) if proof == plain => Ok(()),
        _ => Err(SealError::NotProved),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An object cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The stored bytes are not those that the name promises.
    #[error("its bytes have the SHA-256 {found}")]
    WrongBytes {
        /// SHA-256 of what was read.
        found: Hash256,
    },
    /// age refused: sealed to another key, or altered.
    #[error("age cannot open it: {0}")]
    Decrypt(String),
    /// It is not exactly one zstd frame within the limits.
    #[error("it is not one zstd frame within the limits: {0}")]
    Frame(String),
}

/// Opens the objects of one generation. Holds its secret key.
#[derive(Clone)]
pub struct Opener {
    identity: age::x25519::Identity,
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opener({})", self.identity.to_public())
    }
}

impl Opener {
    /// Checks `stored` against `name` and gives its plaintext. CPU work: call it off the async threads.
    pub fn open(&self, name: &ObjectName, stored: &[u8]) -> Result<Vec<u8>, OpenError> {
        let found = Hash256::of(stored);
        if found != *name {
            return Err(OpenError::WrongBytes { found });
        }
        let frame = self.decrypt(stored).map_err(OpenError::Decrypt)?;
        let mut plain = Vec::new();
        decode_frame(&frame, MAX_PLAIN_BYTES, &mut plain).map_err(OpenError::Frame)?;
        Ok(plain)
    }

    /// Into a buffer that need not grow: the plaintext is shorter than what is stored.
    fn decrypt(&self, stored: &[u8]) -> Result<Vec<u8>, String> {
        let decryptor = age::Decryptor::new_buffered(stored).map_err(|e| e.to_string())?;
        let identities = std::iter::once(&self.identity as &dyn age::Identity);
        let mut reader = decryptor.decrypt(identities).map_err(|e| e.to_string())?;
        let mut frame = Vec::with_capacity(stored.len());
        reader.read_to_end(&mut frame).map_err(|e| e.to_string())?;
        Ok(frame)
    }
}

/// Decodes exactly one frame that states its size, of at most `limit_bytes`, in place of what is in `plain`.
fn decode_frame(frame: &[u8], limit_bytes: usize, plain: &mut Vec<u8>) -> Result<(), String> {
    let code = |code| zstd::zstd_safe::get_error_name(code).to_owned();
    let end = zstd::zstd_safe::find_frame_compressed_size(frame).map_err(code)?;
    if end != frame.len() {
        return Err(format!("{} bytes follow it", frame.len() - end));
    }
    let size = zstd::zstd_safe::get_frame_content_size(frame)
        .map_err(|e| e.to_string())?
        .and_then(|size| usize::try_from(size).ok())
        .filter(|size| *size <= limit_bytes)
        .ok_or_else(|| "its header states no size, or one over the limit".to_owned())?;
    let mut decoder = zstd::bulk::Decompressor::new().map_err(|e| e.to_string())?;
    decoder.set_parameter(zstd::zstd_safe::DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(|e| e.to_string())?;
    plain.clear();
    plain.reserve_exact(size);
    decoder.decompress_to_buffer(frame, plain).map_err(|e| e.to_string())?;
    if plain.len() == size { Ok(()) } else { Err("its length is not the one in its header".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Sealer, Opener) {
        let identity = age::x25519::Identity::generate();
        (Sealer::new(&identity.to_public().to_string(), 1).unwrap(), Opener { identity })
    }

    #[test]
    fn round_trip_up_to_the_limit_and_not_beyond() {
        let (sealer, opener) = pair();
        for size in [0, 1, 65_537, MAX_PLAIN_BYTES] {
            let plain: Vec<u8> = (0..size).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
            let sealed = sealer.seal(&plain).unwrap();
            assert!(sealed.bytes().len() as u64 <= MAX_STORED_BYTES);
            assert_eq!(opener.open(&sealed.name(), sealed.bytes()).unwrap(), plain);
        }
        assert!(matches!(sealer.seal(&vec![0; MAX_PLAIN_BYTES + 1]), Err(SealError::TooLarge { .. })));
    }

    #[test]
    fn what_does_not_compress_fits_into_the_largest_object() {
        assert_eq!((MAX_PLAIN_BYTES, MAX_STORED_BYTES), (4_194_304, 4_194_304 + 65_536 + 4096));
        let (sealer, opener) = pair();
        let mut noise = vec![0; MAX_PLAIN_BYTES];
        getrandom::fill(&mut noise).unwrap();
        let sealed = sealer.seal(&noise).unwrap();
        assert!(sealed.bytes().len() > MAX_PLAIN_BYTES && sealed.bytes().len() as u64 <= MAX_STORED_BYTES);
        assert_eq!(sealed.plain_bytes() as usize, MAX_PLAIN_BYTES);
        assert_eq!(opener.open(&sealed.name(), sealed.bytes()).unwrap(), noise);
    }

    #[test]
    fn a_frame_of_other_bytes_is_not_proved() {
        let mut proof = Vec::new();
        let frame = zstd::bulk::compress(b"payload", 1).unwrap();
        assert!(prove(&frame, b"payload", &mut proof).is_ok());
        for (frame, plain) in [(&frame[..], &b"paylord"[..]), (&frame[..], b"payload."), (&frame[1..], b"payload")] {
            assert!(matches!(prove(frame, plain, &mut proof), Err(SealError::NotProved)));
        }
        // What the room for the proof still holds from the object before is no proof of this one.
        proof = b"payload".to_vec();
        assert!(matches!(prove(&frame[..4], b"payload", &mut proof), Err(SealError::NotProved)));
    }

    #[test]
    fn a_buffer_goes_home_when_the_last_holder_lets_go() {
        let (sealer, _) = pair();
        assert!(sealer.buffer().capacity() >= STORED_BUFFER_BYTES, "sealing must not make it grow");
        let sealed = sealer.seal(b"payload").unwrap();
        let held = sealed.bytes().clone();
        drop(sealed);
        assert_eq!(lock(&sealer.buffers).len(), 0);
        drop(held);
        assert_eq!(lock(&sealer.buffers).len(), 1);
        assert!(sealer.buffer().is_empty(), "and brings nothing along");
    }

    #[test]
    fn altered_foreign_and_loose_objects_are_refused() {
        let (sealer, opener) = pair();
        let sealed = sealer.seal(b"payload").unwrap();
        let mut flipped = sealed.bytes().to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        assert!(matches!(opener.open(&sealed.name(), &flipped), Err(OpenError::WrongBytes { .. })));
        // Even if the name were recomputed by an attacker, age's tag refuses.
        assert!(matches!(opener.open(&Hash256::of(&flipped), &flipped), Err(OpenError::Decrypt(_))));
        let (_, other) = pair();
        assert!(matches!(other.open(&sealed.name(), sealed.bytes()), Err(OpenError::Decrypt(_))));
        let recipient = opener.identity.to_public();
        let frame = zstd::bulk::compress(b"payload", 1).unwrap();
        let two = [frame.clone(), frame.clone()].concat();
        let bomb = zstd::bulk::compress(&vec![0; MAX_PLAIN_BYTES + 1], 1).unwrap();
        for bad in [two, [&frame[..], b"x"].concat(), bomb, b"not zstd".to_vec(), Vec::new()] {
            let stored = age::encrypt(&recipient, &bad).unwrap();
            assert!(matches!(opener.open(&Hash256::of(&stored), &stored), Err(OpenError::Frame(_))));
        }
    }
}
