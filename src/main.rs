//! The `bitacora` program. What it can do is in `cli`.

fn main() -> std::process::ExitCode {
    bitacora::cli::run()
}
