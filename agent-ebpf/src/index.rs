//! Numbers that are written out as instructions: for verifiers that know less than the compiler, or more.

/// `index` cut to the bits of `mask`, where it is used.
///
/// The compiler forgets a mask, or a check, that an earlier comparison makes superfluous; verifiers before Linux 6.18
/// forget that comparison when it was made on a copy of the register. So the mask is an instruction of its own, which
/// the compiler knows nothing about: it must then check the bound of the row once more.
#[inline(always)]
pub fn masked(index: usize, mask: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    let index = {
        let mut index = index;
        // SAFETY: the instruction changes this register alone.
        unsafe {
            core::arch::asm!("{index} &= {mask}", index = inout(reg) index, mask = in(reg) mask, options(pure, nomem, nostack));
        }
        index
    };
    #[cfg(not(target_arch = "bpf"))]
    let index = index & mask;
    index
}

/// Zero, which the compiler takes for any number and the verifier for zero.
#[inline(always)]
pub fn unknown_zero() -> u64 {
    #[cfg(target_arch = "bpf")]
    let zero = {
        let zero: u64;
        // SAFETY: the instruction sets this register alone.
        unsafe {
            core::arch::asm!("{zero} = 0", zero = out(reg) zero, options(pure, nomem, nostack));
        }
        zero
    };
    #[cfg(not(target_arch = "bpf"))]
    let zero = 0;
    zero
}
