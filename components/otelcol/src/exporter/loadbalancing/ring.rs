//! Which endpoint has a key: a ring on which each endpoint has many positions, and a key belongs to the next one.
//!
//! All who send to the same endpoints must choose alike, the reference included, so that positions are its.

/// How many positions the ring has.
const POSITIONS: u32 = 131_071;
/// How many points of an endpoint are put on it.
const POINTS: u32 = 200;
/// How far behind its position, at most, a point is put if that is taken. Points that find no place there are left out.
const PROBES_MAX: u32 = 10;

/// The points of endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ring {
    /// Positions and whose they are, by number, in ascending order.
    points: Vec<(u32, u32)>,
}

impl Ring {
    /// The ring of some endpoints, which are sorted.
    pub(super) fn new(endpoints: &[String]) -> Self {
        let mut candidates = Vec::with_capacity(endpoints.len() * POINTS as usize);
        for (at, endpoint) in (0u32..).zip(endpoints) {
            let begun = crc32(!0, endpoint.as_bytes());
            for point in 0..POINTS {
                let hash = !crc32(begun, &point.to_le_bytes());
                candidates.push((hash % POSITIONS, hash, at));
            }
        }
        // The numbers of the endpoints sort as the endpoints do.
        candidates.sort_unstable();
        let mut taken = vec![false; POSITIONS as usize];
        let mut points = Vec::with_capacity(candidates.len());
        for (position, _, at) in candidates {
            let mut tried = (0..PROBES_MAX).map(|probe| (position + probe) % POSITIONS);
            if let Some(free) = tried.find(|position| !taken[*position as usize]) {
                taken[free as usize] = true;
                points.push((free, at));
            }
        }
        points.sort_unstable();
        Ring { points }
    }

    /// The number of the endpoint that has a key; nothing if there are no endpoints.
    pub(super) fn choose(&self, key: &[u8]) -> Option<u32> {
        let position = !crc32(!0, key) % POSITIONS;
        let next = self.points.partition_point(|(at, _)| *at < position);
        self.points.get(next).or(self.points.first()).map(|(_, endpoint)| *endpoint)
    }
}

/// Goes on with a CRC-32 of IEEE, which begins with all bits set and is the inverse of what comes out.
fn crc32(begun: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(begun, |crc, byte| TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8))
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let (mut crc, mut bit) = (at as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// What the reference's own ring chooses, recorded.
    const RECORDED: &str = include_str!("../../../tests/data/exporter_loadbalancing.json");

    #[test]
    fn endpoints_are_where_the_reference_has_them() {
        let cases: Vec<Value> = serde_json::from_str(RECORDED).unwrap();
        assert_eq!(cases.len(), 7);
        for case in cases {
            let mut endpoints: Vec<String> = serde_json::from_value(case["endpoints"].clone()).unwrap();
            if endpoints == ["700"] {
                endpoints = (0..700).map(|n| format!("10.1.{}.{}:4317", n / 256, n % 256)).collect();
                endpoints.sort();
            }
            let ring = Ring::new(&endpoints);
            assert_eq!(ring.points.len() as u64, case["points"].as_u64().unwrap());
            let shown = |point: &(u32, u32)| serde_json::json!([point.0, endpoints[point.1 as usize]]);
            assert_eq!(Value::from(ring.points[..5].iter().map(shown).collect::<Vec<_>>()), case["first"]);
            assert_eq!(ring.points.last().map(shown), Some(case["last"].clone()));
            for (key, chosen) in case["chosen"].as_object().unwrap() {
                let found = ring.choose(key.as_bytes()).unwrap();
                assert_eq!(endpoints[found as usize], *chosen, "{key}");
            }
        }
        assert_eq!(Ring::default().choose(b"a"), None);
    }

    proptest! {
        #[test]
        fn what_goes_does_not_move_what_stays(count in 2usize..8, gone in 0usize..8, keys: Vec<Vec<u8>>) {
            let all: Vec<String> = (0..count).map(|at| format!("endpoint-{at}:4317")).collect();
            let mut rest = all.clone();
            let gone = rest.remove(gone % count);
            let (before, after) = (Ring::new(&all), Ring::new(&rest));
            let (mut kept, mut moved) = (0, 0);
            for key in &keys {
                let had = &all[before.choose(key).unwrap() as usize];
                let has = &rest[after.choose(key).unwrap() as usize];
                if *had != gone {
                    kept += 1;
                    moved += usize::from(had != has);
                }
            }
            // Points that met are put elsewhere when one of them goes; that is rare.
            prop_assert!(moved <= 2 + kept / 10, "{moved} of {kept}");
        }
    }
}
