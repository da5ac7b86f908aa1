//! The migrations are embedded by a macro; without this, a changed SQL file would not be noticed.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
