//! Cuts and sums that every op over rows relies on.

use crate::cpu::pool::Pool;
use crate::cpu::rows::{column_sums, map_rows, sums};
use crate::testing::noise;

#[test]
fn every_row_of_every_output_is_handed_out_once() {
    for rows in [0, 1, 7, 500] {
        for threads in [1, 3] {
            let pool = Pool::new(threads);
            let (mut wide, mut narrow) = (vec![0.0f32; rows * 3], vec![0.0f32; rows]);
            let outputs = [(&mut wide[..], 3), (&mut narrow[..], 1)];
            map_rows(&pool, rows, 4000, outputs, |range, [wide, narrow]| {
                assert_eq!(wide.len(), 3 * range.len());
                for (i, row) in range.enumerate() {
                    narrow[i] += row as f32;
                    wide[3 * i..3 * i + 3].iter_mut().for_each(|x| *x += row as f32);
                }
            });
            assert!(narrow.iter().enumerate().all(|(i, &x)| x == i as f32));
            assert!(wide.iter().enumerate().all(|(i, &x)| x == (i / 3) as f32));
        }
    }
}

#[test]
fn column_sums_are_accurate_and_independent_of_threads() {
    let (rows, columns) = (1000, 131);
    let x = noise(1, rows * columns);
    let sum = |threads, accumulate| {
        let mut out = vec![if accumulate { 2.0 } else { f32::NAN }; columns];
        column_sums(&Pool::new(threads), rows, &mut out, accumulate, |rows, columns_of, out| {
            for row in rows {
                let x = &x[row * columns..][columns_of.clone()];
                out.iter_mut().zip(x).for_each(|(o, x)| *o += x);
            }
        });
        out
    };
    let out = sum(1, false);
    assert_eq!(out, sum(4, false));
    for (c, &got) in out.iter().enumerate() {
        let column = || (0..rows).map(|r| f64::from(x[r * columns + c]));
        let (truth, size): (f64, f64) = (column().sum(), column().map(f64::abs).sum());
        assert!((f64::from(got) - truth).abs() < 1e-6 * size, "{c}: {got} {truth}");
    }
    let added: Vec<f32> = out.iter().map(|x| 2.0 + x).collect();
    assert_eq!(sum(2, true), added);
}

#[test]
fn sums_cover_body_and_tail() {
    for n in [0, 1, 15, 16, 17, 100] {
        let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let [sum, squares] = sums(&x, &x, &x, |x, y, _| [x, x * y]);
        assert_eq!(sum, x.iter().sum::<f32>());
        assert_eq!(squares, x.iter().map(|x| x * x).sum::<f32>());
    }
}
