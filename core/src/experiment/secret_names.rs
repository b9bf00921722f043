//! Headers, cookies and query parameters whose values are secrets, by their names. PURE.

/// Stands for a secret.
pub const HIDDEN: &str = "(secret)";

/// Parts of the names of headers, cookies and query parameters that hold secrets.
const SECRET_NAMES: &[&str] = &[
    "auth",
    "bypass",
    "cookie",
    "credential",
    "csrf",
    "jwt",
    "key",
    "passw",
    "secret",
    "session",
    "signature",
    "token",
];

/// Whether a header, cookie or query parameter of this name holds a secret, as far as a name can tell.
pub fn names_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

/// Stands for a secret value where two values must be told apart.
pub fn hidden(value: &str) -> String {
    // Reading from memory cannot fail.
    let digest = murmur3::murmur3_32(&mut value.as_bytes(), 0).unwrap_or_default();
    format!("(secret {:04x})", digest >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_credentials_are_known() {
        for (name, holds) in [
            ("Authorization", true),
            ("X-API-Key", true),
            ("x-vercel-protection-bypass", true),
            ("sessionid", true),
            ("plan", false),
            ("Accept-Language", false),
        ] {
            assert_eq!(names_secret(name), holds, "{name}");
        }
    }

    #[test]
    fn hidden_values_are_told_apart() {
        assert_ne!(hidden("one"), hidden("two"));
        assert_eq!(hidden("one").len(), "(secret 0000)".len());
    }
}
