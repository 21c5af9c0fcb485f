//! `fold` adds every element once.

use crate::cpu::CpuDevice;
use crate::ops::fold::add_into;
use crate::testing::noise;

#[test]
fn every_element_is_added_once() {
    for n in [0, 1, 17, 100_003] {
        let (mut a, b) = (noise(1, n), noise(2, n));
        let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        add_into(&CpuDevice::new(2), &mut a, &b);
        assert_eq!(a, expected);
    }
}
