//! Making tokens, and checking the secrets that their bearers show.
//!
//! State keeps of a token its id and the SHA-256 of its secret; the secret itself is in the one
//! text handed to the bearer. 32 random bytes need no slow hash.

use aws_lc_rs::rand;
use mesh_core::catalog::KeyHash;
use mesh_core::name::TokenId;
use mesh_core::state::MeshState;
use mesh_core::time::UnixMillis;
use mesh_core::trust::{CertDer, Token, TokenGrant};
use mesh_net::hash;
use mesh_net::token::{JoinToken, TokenKind};
use zeroize::Zeroizing;

/// Characters of a token's id.
const ID_LEN: usize = 12;
/// 32 letters and digits without those that look alike (`l` and `1`, `o` and `0`), so that five
/// bits of a random byte choose one without bias.
const ID_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// The system gives no randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot get random bytes from the system")]
pub struct NoRandomness;

/// A new token: what the state keeps, and what its bearer gets. The latter is wiped when dropped,
/// and its `Debug` leaves the secret out.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// For the command that records it.
    pub record: Token,
    /// For its bearer, once, by [`JoinToken::to_text`].
    pub bearer: JoinToken,
}

/// Makes a token that grants `grant` until `expires_at`, pinned to the CA with this `root`.
///
/// # Errors
/// [`NoRandomness`].
pub fn create(
    grant: TokenGrant, expires_at: Option<UnixMillis>, note: String, root: &CertDer,
) -> Result<NewToken, NoRandomness> {
    let mut secret = Zeroizing::new([0; 32]);
    rand::fill(&mut *secret).map_err(|_| NoRandomness)?;
    let kind = kind(&grant);
    let bearer = JoinToken { kind, id: random_id()?, secret: *secret, ca: hash::sha256(&root.0) };
    let id = bearer.id.clone();
    let record = Token { id, secret: bearer.secret_hash(), grant, expires_at, used: None, note };
    Ok(NewToken { record, bearer })
}

/// The hash by which the state knows the secret that a request shows as 64 hex digits; `None` if
/// it is none.
pub fn secret_hash(secret_hex: &str) -> Option<KeyHash> {
    let mut secret = Zeroizing::new([0; 32]);
    hex::decode_to_slice(secret_hex, &mut *secret).ok()?;
    Some(hash::key_hash(&*secret))
}

/// Whether `shown` is the hash of the secret of `token`, and `token` had not ended at `now`.
pub fn is_valid(token: &Token, shown: &KeyHash, now: UnixMillis) -> bool {
    // Both are looked at, so that time does not tell which failed.
    let same = hash::equal(&token.secret.0, &shown.0);
    let alive = token.expires_at.is_none_or(|end| now < end);
    same & alive
}

/// Whether `shown` is the hash of the secret of the token `id` of `state`, whatever it is still
/// good for.
pub fn is_secret_of(state: &MeshState, id: &TokenId, shown: &KeyHash) -> bool {
    state.tokens.get(id).is_some_and(|token| hash::equal(&token.secret.0, &shown.0))
}

/// The kind of text that carries a token for `grant`.
fn kind(grant: &TokenGrant) -> TokenKind {
    match grant {
        TokenGrant::JoinNode { .. } => TokenKind::JoinNode,
        TokenGrant::JoinServer { .. } => TokenKind::JoinServer,
        TokenGrant::Api { .. } => TokenKind::Api,
    }
}

#[expect(clippy::expect_used, reason = "the alphabet holds letters and digits only")]
fn random_id() -> Result<TokenId, NoRandomness> {
    let mut bytes = [0; ID_LEN];
    rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    let id: String = bytes.iter().map(|b| char::from(ID_ALPHABET[usize::from(b & 31)])).collect();
    Ok(id.parse().expect("twelve letters and digits are a token id"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use mesh_core::catalog::NodePolicy;
    use mesh_core::trust::Role;

    use super::*;

    fn new(grant: TokenGrant) -> NewToken {
        let root = CertDer(vec![1, 2, 3]);
        create(grant, Some(UnixMillis(100)), "for tests".to_owned(), &root).unwrap()
    }

    #[test]
    fn a_token_carries_its_kind_its_pin_and_the_secret_of_its_record() {
        let cases = [
            (
                TokenGrant::JoinNode { node: None, policy: NodePolicy::default() },
                TokenKind::JoinNode,
            ),
            (TokenGrant::JoinServer { server: None }, TokenKind::JoinServer),
            (TokenGrant::Api { role: Role::Viewer }, TokenKind::Api),
        ];
        for (grant, kind) in cases {
            let token = new(grant.clone());
            let text: JoinToken = token.bearer.to_text().parse().unwrap();
            assert_eq!(text, token.bearer);
            assert_eq!((text.kind, &text.id), (kind, &token.record.id));
            assert_eq!(text.ca, hash::sha256(&[1, 2, 3]));
            assert_eq!(secret_hash(&text.secret_hex()), Some(token.record.secret));
            assert_eq!((token.record.grant, token.record.used), (grant, None));
        }
    }

    #[test]
    fn ids_are_twelve_unambiguous_characters_and_differ() {
        let ids: Vec<TokenId> = (0..200).map(|_| random_id().unwrap()).collect();
        for id in &ids {
            assert_eq!(id.as_str().len(), ID_LEN);
            assert!(id.as_str().bytes().all(|b| ID_ALPHABET.contains(&b)), "{id}");
        }
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }

    #[test]
    fn secrets_are_never_shown() {
        let token = new(TokenGrant::Api { role: Role::Admin });
        let secret = token.bearer.secret_hex();
        let shown = format!("{token:?} {:?}", token.record);
        assert!(!shown.contains(secret.as_str()), "{shown}");
        assert!(!serde_json::to_string(&token.record).unwrap().contains(secret.as_str()));
    }

    #[test]
    fn only_the_secret_opens_and_only_until_the_end() {
        let token = new(TokenGrant::Api { role: Role::Admin }).record;
        let right = token.secret;
        assert!(is_valid(&token, &right, UnixMillis(99)));
        assert!(!is_valid(&token, &right, UnixMillis(100)));
        assert!(!is_valid(&token, &KeyHash([0; 32]), UnixMillis(99)));
        let forever = Token { expires_at: None, ..token };
        assert!(is_valid(&forever, &right, UnixMillis(u64::MAX)));
        for bad in ["", "00", &"0g".repeat(32), &"00".repeat(33)] {
            assert_eq!(secret_hash(bad), None, "{bad}");
        }
    }
}
