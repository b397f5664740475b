//! The memory of this machine.

/// Bytes that programs can still have without swapping; `None` if the kernel does not say.
pub(crate) fn available() -> Option<u64> {
    available_in(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn available_in(text: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_how_much_memory_is_left() {
        assert_eq!(available_in("MemTotal:  9 kB\nMemAvailable:    1234 kB\n"), Some(1_263_616));
        assert_eq!(available_in("MemTotal:  9 kB\n"), None);
        assert!(available().is_some_and(|bytes| bytes > 0));
    }
}
