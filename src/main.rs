//! `octet`: the command line. Everything it can do is in `cli`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
