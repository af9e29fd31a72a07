# services.drover: a machine that is a master or an agent of a drover cluster, or both.
#
# The unit files under `units/` are the one source of the services' directives (see `unit-file.nix`). What is said here
# on top of them is what differs on NixOS: store paths, restarts at a switch, and how a machine gets its identity.
{
  config,
  lib,
  pkgs,
  utils,
  ...
}:
let
  inherit (lib) types;

  cfg = config.services.drover;
  format = pkgs.formats.toml { };
  readUnit = import ./unit-file.nix { inherit lib; };

  droverd = lib.getExe' cfg.package "droverd";
  drover = lib.getExe' cfg.package "drover";

  # Fixed: StateDirectory= and ConditionPathExists= of the shipped units name it.
  stateDir = "/var/lib/droverd";

  # "0.0.0.0:7071", "[::]:7071" or "n1:7071".
  hostOf = address: lib.concatStringsSep ":" (lib.init (lib.splitString ":" address));
  portOf = address: lib.toIntBase10 (lib.last (lib.splitString ":" address));
  isLoopback =
    address:
    hostOf address == "localhost" || hostOf address == "[::1]" || lib.hasPrefix "127." address;
  listenAddress = types.strMatching ".+:[0-9]+" // {
    description = "address and port, written host:port";
  };

  # TOML knows no null, and the table of a role that this machine does not have stays out of its file.
  absentRoles = lib.filter (role: !cfg.${role}.enable) [
    "master"
    "agent"
  ];
  rawConfigFile = format.generate "drover.toml" (
    lib.filterAttrsRecursive (_: value: value != null) (removeAttrs cfg.settings absentRoles)
  );
  checkedConfigFile = pkgs.runCommandLocal "drover.toml" { } ''
    ${droverd} --check-config --config ${rawConfigFile}
    cp ${rawConfigFile} $out
  '';
  configFile = if cfg.checkConfig then checkedConfigFile else rawConfigFile;

  words = value: lib.filter (word: word != "") (lib.splitString " " value);

  # A daemon of `units/`, its program taken from the store.
  daemon =
    file:
    let
      unit = readUnit file;
    in
    {
      # Through NixOS' own options where there is one, so that another module can add to them.
      description = unit.Unit.Description;
      documentation = words unit.Unit.Documentation;
      after = words unit.Unit.After;
      wants = words unit.Unit.Wants;
      wantedBy = words unit.Install.WantedBy;
      unitConfig = removeAttrs unit.Unit [
        "Description"
        "Documentation"
        "After"
        "Wants"
      ];
      serviceConfig = unit.Service // {
        ExecStart = lib.replaceStrings [ "/usr/bin/droverd" ] [ droverd ] unit.Service.ExecStart;
      };
      # ExecStart= names /etc/drover/drover.toml, so a changed file has to be told.
      restartTriggers = [ configFile ];
      # Out with the old and in with the new in one step: peers see a gap of milliseconds, tasks see none.
      stopIfChanged = false;
    };

  # What NixOS puts on the PATH of its own services.
  servicePath = [
    pkgs.coreutils
    pkgs.findutils
    pkgs.gnugrep
    pkgs.gnused
    config.systemd.package
  ];

  slice =
    file:
    let
      unit = readUnit file;
    in
    {
      description = unit.Unit.Description;
      documentation = words unit.Unit.Documentation;
      before = words unit.Unit.Before;
      sliceConfig = unit.Slice;
    };

  # The agent's sandbox without what makes it a daemon; it leaves a StateDirectory= writable and the network open.
  sandbox =
    lib.filterAttrs
      (
        key: _:
        lib.any (prefix: lib.hasPrefix prefix key) [
          "CapabilityBoundingSet"
          "DevicePolicy"
          "LockPersonality"
          "MemoryDeny"
          "NoNewPrivileges"
          "Private"
          "Protect"
          "ReadOnlyPaths"
          "Restrict"
          "SystemCall"
          "UMask"
        ]
      )
      (readUnit ../units/droverd-agent.service).Service;

  # The two ways to an identity run as root before the daemons and write below `stateDir`; PID 1 hands the master's
  # part to its user when that daemon first starts. With an identity in place they are skipped, at every boot and switch.
  bootstrap =
    { role, daemons, ... }@args:
    {
      inherit (args) description;
      documentation = [ "https://github.com/drover/drover" ];
      wantedBy = [ "multi-user.target" ];
      before = daemons;
      # If this took more than one try, the daemons' own start jobs were over by then: skipped for want of an identity.
      onSuccess = daemons;
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      startLimitIntervalSec = 0;
      unitConfig.ConditionPathExists = "!${stateDir}/${role}/pki/identity.json";
      serviceConfig = {
        Type = "oneshot";
        StateDirectory = "droverd";
      }
      // sandbox
      // args.serviceConfig;
    };

  identityArguments =
    role:
    [
      "--data-dir"
      stateDir
    ]
    ++ lib.optionals (cfg.settings.name != null) [
      "--name"
      cfg.settings.name
    ]
    ++ lib.optionals (role == "master" && cfg.settings.master.advertise != null) [
      "--advertise"
      cfg.settings.master.advertise
    ];

  joinUnit =
    role:
    bootstrap {
      inherit role;
      daemons = [ "droverd-${role}.service" ];
      description = "Join of this machine to a drover cluster as ${role}";
      serviceConfig = {
        LoadCredential = [ "token:${cfg.${role}.join.tokenFile}" ];
        ExecStart = "${drover} node join --token-file %d/token ${
          utils.escapeSystemdExecArgs (
            [
              "--master"
              cfg.${role}.join.master
              "--role"
              role
            ]
            ++ identityArguments role
          )
        }";
        # The master may come up after this machine, and the token may be brought after the first boot.
        Restart = "on-failure";
        RestartSec = "5s";
      };
    };

  joinOption =
    role:
    lib.mkOption {
      default = null;
      description = ''
        How this machine becomes ${if role == "master" then "a further master" else "an agent"} of a cluster that
        exists, if it has no identity yet. Without it, run {command}`drover node join --role ${role}` by hand.
      '';
      type = types.nullOr (
        types.submodule {
          options = {
            tokenFile = lib.mkOption {
              type = types.externalPath;
              example = "/run/secrets/drover-${role}-token";
              description = ''
                File with the line that {command}`drover token create --role ${role}` printed. It is read once, as a
                credential of the joining unit, and may be removed when the machine has joined. A path in the Nix store
                is refused, because the store is readable by everyone.
              '';
            };
            master = lib.mkOption {
              type = listenAddress;
              example = "n1:7071";
              description = "Cluster listener of any master, as `host:port`.";
            };
          };
        }
      );
    };
in
{
  options.services.drover = {
    enable = lib.mkEnableOption "drover, the init and cron of a cluster";

    package = lib.mkPackageOption pkgs "drover" { };

    checkConfig = lib.mkOption {
      type = types.bool;
      default = pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform;
      defaultText = lib.literalExpression "pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform";
      description = ''
        Whether to let {command}`droverd --check-config` read the configuration while the system is built, so that a
        mistake stops the build and not a running daemon.
      '';
    };

    openFirewall = lib.mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether to open the ports of a master: that of {option}`services.drover.settings.master.cluster_listen`, and that
        of {option}`services.drover.settings.master.api_listen` unless it listens on a loopback address. The API asks
        nobody who they are. An agent needs no open port.
      '';
    };

    master = {
      enable = lib.mkEnableOption "the master role: replicated state, decisions and the HTTP API";

      clusterInit = lib.mkOption {
        type = types.bool;
        default = false;
        description = ''
          Whether this machine founds the cluster if it has no identity yet: it becomes its certificate authority and
          first master and, where {option}`services.drover.agent.enable` is set, its first agent. To be set on exactly
          one machine; it may stay set for ever.
        '';
      };

      join = joinOption "master";
    };

    agent = {
      enable = lib.mkEnableOption "the agent role: running tasks as systemd units of this machine";

      join = joinOption "agent";

      path = lib.mkOption {
        type = types.listOf types.package;
        default = [ ];
        example = lib.literalExpression "[ pkgs.bash pkgs.python3 ]";
        description = ''
          Packages whose programs tasks find by name, besides those every service of NixOS finds. A task that is given a
          {env}`PATH` of its own has that one instead.
        '';
      };
    };

    settings = lib.mkOption {
      default = { };
      example = lib.literalExpression ''
        {
          master.agent_timeout = "30s";
          agent.masters = [ "n1:7071" "n2:7071" "n3:7071" ];
          agent.attributes.rack = "a";
          agent.resources.mem = "48G";
        }
      '';
      description = ''
        Contents of {file}`/etc/drover/drover.toml`. The table of a role that is not enabled on this machine is left out of
        the file, so that all machines of a cluster can share one value. The file is readable by everyone: secrets have no
        place in it.
      '';
      type = types.submodule {
        freeformType = format.type;

        options = {
          name = lib.mkOption {
            type = types.nullOr types.nonEmptyStr;
            default = if config.networking.hostName == "" then null else config.networking.hostName;
            defaultText = lib.literalExpression "config.networking.hostName";
            description = "Name of this machine in the cluster. `null` is the host name at run time.";
          };

          master = {
            api_listen = lib.mkOption {
              type = listenAddress;
              default = "127.0.0.1:7070";
              example = "[::]:7070";
              description = "Where the HTTP API listens.";
            };

            cluster_listen = lib.mkOption {
              type = listenAddress;
              default = "0.0.0.0:7071";
              example = "[::]:7071";
              description = "Where other masters, agents and joining machines are listened to, over mutually authenticated TLS.";
            };

            advertise = lib.mkOption {
              type = types.nullOr listenAddress;
              default = null;
              example = "n1.example.org:7071";
              description = ''
                How other machines reach this master's cluster listener. `null` is the machine's name and the port of
                {option}`services.drover.settings.master.cluster_listen`.
              '';
            };
          };

          agent = {
            masters = lib.mkOption {
              type = types.listOf listenAddress;
              default = lib.optional cfg.master.enable (
                let
                  address = cfg.settings.master.cluster_listen;
                in
                if hostOf address == "0.0.0.0" || hostOf address == "[::]" then
                  "127.0.0.1:${toString (portOf address)}"
                else
                  address
              );
              defaultText = lib.literalMD "the master on the same machine, if there is one";
              example = [
                "n1:7071"
                "n2:7071"
                "n3:7071"
              ];
              description = "Masters the agent asks first for the leader.";
            };
          };
        };
      };
    };
  };

  config = lib.mkIf cfg.enable (
    lib.mkMerge [
      {
        assertions = [
          {
            assertion = cfg.master.enable || cfg.agent.enable;
            message = ''
              services.drover.enable gives this machine no role. Set services.drover.master.enable or
              services.drover.agent.enable; for the client alone, put the package into environment.systemPackages.
            '';
          }
          {
            assertion = cfg.settings.data_dir or stateDir == stateDir;
            message = ''
              services.drover.settings.data_dir must be ${stateDir}: the units keep their state there.
              To use another disk, mount it at ${stateDir}.
            '';
          }
          {
            assertion = cfg.master.clusterInit || cfg.master.join != null -> cfg.master.enable;
            message = ''
              services.drover.master.clusterInit and services.drover.master.join need services.drover.master.enable.
            '';
          }
          {
            assertion = cfg.agent.join != null -> cfg.agent.enable;
            message = "services.drover.agent.join needs services.drover.agent.enable.";
          }
          {
            assertion = !(cfg.master.clusterInit && cfg.master.join != null);
            message = ''
              services.drover.master.clusterInit founds a new cluster and services.drover.master.join enters one that
              exists. Keep clusterInit on the first master only.
            '';
          }
          {
            assertion = !(cfg.master.clusterInit && cfg.agent.join != null);
            message = ''
              services.drover.master.clusterInit makes this machine's agent a member of the new cluster: remove
              services.drover.agent.join.
            '';
          }
          {
            assertion = cfg.agent.enable -> cfg.settings.agent.masters != [ ];
            message = ''
              services.drover.settings.agent.masters is empty, so the agent knows nobody to ask for the leader.
              Name at least one master as "host:port".
            '';
          }
        ];

        environment.etc."drover/drover.toml".source = configFile;
        environment.systemPackages = [ cfg.package ];

        # `drover cluster init` and `drover node join`, run by hand, find it in place.
        systemd.tmpfiles.settings."10-drover".${stateDir}.d = {
          user = "root";
          group = "root";
          mode = "0755";
        };
      }

      (lib.mkIf cfg.master.enable {
        users.users.drover = {
          isSystemUser = true;
          group = "drover";
          description = "drover master";
        };
        users.groups.drover = { };

        systemd.services.droverd-master = daemon ../units/droverd-master.service;

        networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall (
          [ (portOf cfg.settings.master.cluster_listen) ]
          ++ lib.optional (!isLoopback cfg.settings.master.api_listen) (
            portOf cfg.settings.master.api_listen
          )
        );
      })

      (lib.mkIf cfg.agent.enable {
        systemd.services.droverd-agent = daemon ../units/droverd-agent.service;

        systemd.slices = {
          drover = slice ../units/drover.slice;
          drover-apps = slice ../units/drover-apps.slice;
          drover-jobs = slice ../units/drover-jobs.slice;
          drover-frameworks = slice ../units/drover-frameworks.slice;
        };

        # Elsewhere PID 1's own default leads to /usr/bin; here it leads nowhere a task could use. By its name it is a
        # drop-in of every task's unit, and sets PATH only for a task whose environment has none.
        systemd.packages = [
          (pkgs.writeTextDir "lib/systemd/system/drover-.service.d/10-path.conf" ''
            [Service]
            ExecSearchPath=${lib.makeBinPath (cfg.agent.path ++ servicePath)}
          '')
        ];
      })

      (lib.mkIf cfg.master.clusterInit {
        systemd.services.droverd-cluster-init = bootstrap {
          role = "master";
          daemons = [
            "droverd-master.service"
          ]
          ++ lib.optional cfg.agent.enable "droverd-agent.service";
          description = "Founding of a drover cluster by this machine";
          serviceConfig.ExecStart = "${drover} cluster init ${
            utils.escapeSystemdExecArgs (identityArguments "master" ++ lib.optional cfg.agent.enable "--agent")
          }";
        };
      })

      (lib.mkIf (cfg.master.join != null) {
        systemd.services.droverd-join-master = joinUnit "master";
      })

      (lib.mkIf (cfg.agent.join != null) {
        systemd.services.droverd-join-agent = joinUnit "agent";
      })
    ]
  );

  meta.maintainers = [ ];
}
