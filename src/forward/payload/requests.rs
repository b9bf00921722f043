//! Messages that go in one request. PURE.

use std::ops::Range;
use uuid::Uuid;

/// The most bytes of the messages of one request: below what all vendors take.
const BYTES_MAX: usize = 400 << 10;

/// Messages that go in one request.
#[derive(Debug)]
pub(crate) struct Payload {
    /// What stands before and after the messages.
    pub frame: (String, String),
    /// Each message, with its ID.
    pub items: Vec<(Uuid, String)>,
}

impl Payload {
    /// Returns the IDs of its messages.
    pub(crate) fn ids(&self) -> impl Iterator<Item = Uuid> {
        self.items.iter().map(|(id, _)| *id)
    }

    /// Returns the body.
    pub(crate) fn body(&self) -> String {
        let (before, after) = &self.frame;
        let items: Vec<&str> = self.items.iter().map(|(_, item)| &**item).collect();
        format!("{before}{}{after}", items.join(","))
    }

    /// Returns an ID that the same messages always have together.
    pub(crate) fn id(&self) -> String {
        let first = self.ids().next().unwrap_or_default();
        let last = self.ids().last().unwrap_or_default();
        format!("{}-{}-{}", first.simple(), last.simple(), self.items.len())
    }

    /// Divides it into halves; `None` for a single message.
    pub(crate) fn halves(mut self) -> Result<(Payload, Payload), Payload> {
        if self.items.len() < 2 {
            return Err(self);
        }
        let second = Payload {
            frame: self.frame.clone(),
            items: self.items.split_off(self.items.len() / 2),
        };
        Ok((self, second))
    }
}

impl Payload {
    /// Divides messages among requests: no request has too many or too large ones. A single message may be larger.
    pub(crate) fn divided(
        frame: &(String, String),
        items: &[(Uuid, String)],
        items_max: usize,
    ) -> Vec<Payload> {
        let payload = |part: Range<usize>| Payload {
            frame: frame.clone(),
            items: items[part].to_vec(),
        };
        parts(items, items_max).into_iter().map(payload).collect()
    }
}

/// The parts of [`Payload::divided`].
fn parts(items: &[(Uuid, String)], items_max: usize) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let (mut first, mut bytes) = (0, 0);
    for (place, (_, item)) in items.iter().enumerate() {
        let is_full = place - first == items_max || bytes + item.len() > BYTES_MAX;
        if is_full && place > first {
            parts.push(first..place);
            (first, bytes) = (place, 0);
        }
        bytes += item.len() + 1;
    }
    if first < items.len() {
        parts.push(first..items.len());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_bounded_in_number_and_bytes() {
        let of = |sizes: &[usize]| -> Vec<(Uuid, String)> {
            let items = sizes.iter().map(|size| (Uuid::nil(), "x".repeat(*size)));
            items.collect()
        };
        assert!(parts(&of(&[]), 3).is_empty());
        assert_eq!(parts(&of(&[1; 7]), 3), [0..3, 3..6, 6..7]);
        let large = BYTES_MAX * 2 / 3;
        assert_eq!(parts(&of(&[large, large, 1, 1]), 3), [0..1, 1..4]);
        // One that is too large goes alone.
        assert_eq!(parts(&of(&[1, 2 * BYTES_MAX, 1]), 3), [0..1, 1..2, 2..3]);
    }

    #[test]
    fn halves_have_all_messages_in_order() {
        let ids: Vec<Uuid> = (0..5).map(Uuid::from_u128).collect();
        let payload = Payload {
            frame: ("[".to_owned(), "]".to_owned()),
            items: ids
                .iter()
                .map(|id| (*id, id.as_u128().to_string()))
                .collect(),
        };
        let name = payload.id();
        let (first, second) = payload.halves().unwrap();
        assert_ne!(first.id(), name);
        assert_eq!((&*first.body(), &*second.body()), ("[0,1]", "[2,3,4]"));
        let (one, _) = first.halves().unwrap();
        assert!(one.halves().is_err());
    }
}
