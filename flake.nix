{
  description = "drover, the init and cron of a cluster of systemd machines";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;

      forEachSystem =
        f:
        lib.genAttrs [
          "x86_64-linux"
          "aarch64-linux"
        ] (system: f (nixpkgs.legacyPackages.${system}.extend self.overlays.default));
    in
    {
      overlays.default = final: _prev: {
        drover = final.callPackage ./packaging/package.nix { };
      };

      packages = forEachSystem (pkgs: {
        inherit (pkgs) drover;
        default = pkgs.drover;
      });

      nixosModules = {
        drover =
          { lib, pkgs, ... }:
          {
            imports = [ ./nixos-module ];
            services.drover.package =
              lib.mkDefault
                self.packages.${pkgs.stdenv.hostPlatform.system}.drover;
          };
        default = self.nixosModules.drover;
      };

      checks = forEachSystem (
        pkgs:
        {
          inherit (pkgs) drover;

          # Building it fails on an option without a description.
          module-options =
            (pkgs.nixosOptionsDoc {
              options =
                (lib.evalModules {
                  modules = [
                    ./nixos-module
                    {
                      _module.check = false;
                      _module.args = {
                        inherit pkgs;
                        utils = { };
                      };
                    }
                  ];
                }).options.services.drover;
            }).optionsCommonMark;
        }
        // import ./nixos-module/checks.nix {
          inherit lib pkgs;
          evalMachine =
            modules:
            lib.nixosSystem {
              inherit (pkgs.stdenv.hostPlatform) system;
              modules = [ self.nixosModules.default ] ++ modules;
            };
        }
        // import ./tests/vm {
          inherit lib;
          runTest =
            test:
            pkgs.testers.runNixOSTest {
              imports = [ test ];
              defaults.imports = [ self.nixosModules.default ];
            };
        }
      );

      devShells = forEachSystem (pkgs: {
        default = pkgs.mkShell {
          inputsFrom = [ pkgs.drover ];
          packages = [
            pkgs.cargo-deny
            pkgs.clippy
            pkgs.rust-analyzer
            pkgs.rustfmt
            pkgs.python3
          ];
        };
      });

      formatter = forEachSystem (pkgs: pkgs.nixfmt-tree);
    };
}
