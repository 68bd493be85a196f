//! What a process has learnt of a target, for the next one to start from.

use std::collections::BTreeMap;

/// The version that is written and read.
const VERSION: u32 = 1;
/// What differs by less is not worth a write.
const WORTH: f64 = 0.1;

/// Learnt figures; kept in the store as JSON.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Note {
    version: u32,
    /// Calls at once.
    pub(super) limit: f64,
    /// Baseline in seconds by the name of the route class.
    pub(super) classes: BTreeMap<String, f64>,
}

impl Note {
    pub(super) const fn new(limit: f64, classes: BTreeMap<String, f64>) -> Self {
        Self {
            version: VERSION,
            limit,
            classes,
        }
    }

    /// Reads a note; the error says what is wrong with it.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let note: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if note.version != VERSION {
            return Err(format!("version {} is not {VERSION}", note.version));
        }
        let sound = |figure: &f64| figure.is_finite() && *figure > 0.0;
        if !sound(&note.limit) || !note.classes.values().all(sound) {
            return Err("a figure is not above 0".to_owned());
        }
        Ok(note)
    }

    pub(super) fn text(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }

    /// Whether it says something new compared with an earlier one.
    pub(super) fn differs(&self, from: &Self) -> bool {
        let far = |new: f64, old: f64| (new - old).abs() > WORTH * old;
        let class = |(name, new): (&String, &f64)| from.classes.get(name).is_none_or(|old| far(*new, *old));
        far(self.limit, from.limit) || self.classes.iter().any(class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(limit: f64, scan: f64) -> Note {
        Note::new(limit, BTreeMap::from([("/v1/scan".to_owned(), scan)]))
    }

    #[test]
    fn what_was_written_is_read() {
        let text = note(31.5, 0.05).text().unwrap();
        assert_eq!(text, r#"{"version":1,"limit":31.5,"classes":{"/v1/scan":0.05}}"#);
        assert_eq!(Note::read(&text), Ok(note(31.5, 0.05)));
    }

    #[test]
    fn damaged_notes_are_refused() {
        for text in [
            "",
            "{",
            "null",
            r#"{"version":2,"limit":31.5,"classes":{}}"#,
            r#"{"version":1,"limit":0,"classes":{}}"#,
            r#"{"version":1,"limit":-4,"classes":{}}"#,
            r#"{"version":1,"limit":1e999,"classes":{}}"#,
            r#"{"version":1,"limit":9,"classes":{"/a":0}}"#,
            r#"{"version":1,"limit":9,"classes":{"/a":"x"}}"#,
            r#"{"version":1,"limit":9,"classes":{},"more":1}"#,
        ] {
            assert!(Note::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_what_has_changed_by_a_tenth_is_written_again() {
        let cases = [
            (10.9, 0.05, false),
            (11.1, 0.05, true),
            (8.9, 0.05, true),
            (10.0, 0.06, true),
        ];
        for (limit, scan, wanted) in cases {
            assert_eq!(note(limit, scan).differs(&note(10.0, 0.05)), wanted, "{limit} {scan}");
        }
        let more = Note::new(10.0, BTreeMap::from([("/v2/scan".to_owned(), 0.05)]));
        assert!(more.differs(&note(10.0, 0.05)));
    }
}
