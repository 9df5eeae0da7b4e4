//! The `bitacora` program. What it can do is in `cli`.

/// Of every webhook's instructions in this process a sixth were the system's
/// allocator's; see docs/adr/0016.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    bitacora::cli::run()
}
