//! The class of the client's device, by what its browser reports.

use super::http_view::HeaderView;
use http::header::{HeaderName, USER_AGENT};

const HINT: HeaderName = HeaderName::from_static("sec-ch-ua-mobile");

/// The class of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceClass {
    /// A phone.
    Mobile,
    /// A tablet.
    Tablet,
    /// A desktop or laptop computer.
    Desktop,
    /// A client that does not look like a browser.
    Other,
}

impl DeviceClass {
    /// All classes.
    pub const ALL: [DeviceClass; 4] = [
        DeviceClass::Mobile,
        DeviceClass::Tablet,
        DeviceClass::Desktop,
        DeviceClass::Other,
    ];

    /// The fields that decide the class.
    pub const FIELDS: [HeaderName; 2] = [USER_AGENT, HINT];

    /// Returns the class of the device that sends these fields.
    pub fn of<'a>(fields: impl HeaderView<'a>) -> DeviceClass {
        let agent = fields.first(&USER_AGENT).unwrap_or_default();
        let has = |word: &str| memchr::memmem::find(agent, word.as_bytes()).is_some();
        let is_tablet = has("iPad") || has("Tablet") || (has("Android") && !has("Mobile"));
        match fields.first(&HINT).map(<[u8]>::trim_ascii) {
            _ if is_tablet => DeviceClass::Tablet,
            Some(b"?1") => DeviceClass::Mobile,
            _ if has("Mobile") || has("Mobi/") || has("iPhone") => DeviceClass::Mobile,
            Some(b"?0") => DeviceClass::Desktop,
            _ if has("Mozilla/") => DeviceClass::Desktop,
            _ => DeviceClass::Other,
        }
    }

    /// Returns its name in the file and in segments.
    pub fn name(self) -> &'static str {
        match self {
            DeviceClass::Mobile => "mobile",
            DeviceClass::Tablet => "tablet",
            DeviceClass::Desktop => "desktop",
            DeviceClass::Other => "other",
        }
    }
}
