//! The cases that come with the simulator.

use super::Case;

const FILES: &[&str] = &[
    include_str!("../../cases/w01.json"),
    include_str!("../../cases/w02.json"),
    include_str!("../../cases/w02-one-customer.json"),
    include_str!("../../cases/w02-tenth.json"),
    include_str!("../../cases/w03.json"),
    include_str!("../../cases/w04.json"),
    include_str!("../../cases/w05.json"),
    include_str!("../../cases/w06.json"),
    include_str!("../../cases/w07.json"),
    include_str!("../../cases/w08-noisy.json"),
    include_str!("../../cases/w08-slow.json"),
    include_str!("../../cases/w09.json"),
    include_str!("../../cases/w10.json"),
    include_str!("../../cases/w10-cool-off.json"),
    include_str!("../../cases/w11.json"),
    include_str!("../../cases/w12.json"),
    include_str!("../../cases/w13.json"),
    include_str!("../../cases/w13-together.json"),
    include_str!("../../cases/w14.json"),
    include_str!("../../cases/w15.json"),
    include_str!("../../cases/start-up-in-overload.json"),
    include_str!("../../cases/store-latency.json"),
    include_str!("../../cases/three-gateways.json"),
];

/// Every bundled case, in order.
#[must_use]
pub fn all() -> Vec<Case> {
    let cases = FILES.iter().map(|text| Case::parse(text));
    cases.filter_map(Result::ok).collect()
}

/// The bundled case of this name.
#[must_use]
pub fn named(name: &str) -> Option<Case> {
    all().into_iter().find(|case| case.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_a_case_of_its_own() {
        let mut names: Vec<String> = FILES.iter().map(|text| Case::parse(text).unwrap().name).collect();
        names.dedup();
        assert_eq!(names.len(), FILES.len());
        assert!(named("w02").is_some_and(|case| case.autoscaler.is_some()));
    }
}
