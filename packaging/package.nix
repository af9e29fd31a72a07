# The two programs, built by nixpkgs' own Rust tooling. Kept in the form nixpkgs would take it in.
{
  lib,
  stdenv,
  rustPlatform,
  installShellFiles,
  pkg-config,
  systemdLibs,
}:
let
  root = ../.;
  manifest = lib.importTOML (root + "/Cargo.toml");
in
rustPlatform.buildRustPackage {
  pname = "drover";
  inherit (manifest.workspace.package) version;

  # Only what the build reads, so that a change to a document or a test scenario rebuilds nothing.
  src = lib.fileset.toSource {
    inherit root;
    fileset = lib.fileset.unions [
      (root + "/Cargo.toml")
      (root + "/Cargo.lock")
      (root + "/cli")
      (root + "/daemon")
      # Not built, but a member of the workspace.
      (root + "/benches/load/Cargo.toml")
      (root + "/benches/load/src")
      (root + "/units")
    ];
  };
  cargoLock.lockFile = root + "/Cargo.lock";

  nativeBuildInputs = [
    installShellFiles
    pkg-config
  ];
  buildInputs = [ systemdLibs ];

  # For machines with Nix but without NixOS; the NixOS module reads the same files itself.
  postInstall = ''
    for unit in units/*.service units/*.slice; do
      install -D -m 644 "$unit" -t $out/lib/systemd/system
    done
    substituteInPlace $out/lib/systemd/system/*.service \
      --replace-fail /usr/bin/droverd $out/bin/droverd
    install -D -m 644 units/sysusers.d/*.conf -t $out/lib/sysusers.d
    install -D -m 644 units/tmpfiles.d/*.conf -t $out/lib/tmpfiles.d
  ''
  # The client writes its own, so it has to run.
  + lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
    installShellCompletion --cmd drover \
      --bash <($out/bin/drover completion bash) \
      --fish <($out/bin/drover completion fish) \
      --zsh <($out/bin/drover completion zsh)
    mkdir -p $out/share/man/man1
    $out/bin/drover man-pages $out/share/man/man1
  '';

  meta = {
    description = "Init and cron of a cluster of systemd machines";
    homepage = manifest.workspace.package.repository;
    license = lib.licenses.asl20;
    mainProgram = "drover";
    platforms = lib.platforms.linux;
    maintainers = [ ];
  };
}
