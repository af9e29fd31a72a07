# Every scenario of `scenarios/` as a NixOS VM test, and the tests that are about NixOS itself, such as nixos-switch.
# `runTest` is `pkgs.testers.runNixOSTest` with services.drover known to every node.
{ lib, runTest }:
let
  story = builtins.readFile ./story.py;

  # What stands between the quotes of NAME = """…""" in story.py: the settings the lab's machines get too.
  settingsOf =
    name: substitutions:
    let
      rest = lib.last (lib.splitString "\n${name} = \"\"\"" story);
      toml = lib.head (lib.splitString "\"\"\"" rest);
    in
    builtins.fromTOML (
      lib.replaceStrings (lib.attrNames substitutions) (lib.attrValues substitutions) toml
    );

  # "# nodes: masters=3 agents=3 vm=false" -> { masters = "3"; agents = "3"; vm = "false"; }
  headerOf =
    file: text:
    let
      first = lib.head (lib.splitString "\n" text);
      words = builtins.match "# nodes: (.+)" first;
      pair = word: builtins.match "([a-z]+)=([a-z0-9]+)" word;
    in
    if words == null then
      throw "${toString file}: the first line must be like `# nodes: masters=3 agents=3 vm=false`"
    else
      lib.listToAttrs (
        map (word: lib.nameValuePair (lib.elemAt (pair word) 0) (lib.elemAt (pair word) 1)) (
          lib.splitString " " (lib.head words)
        )
      );

  # A node as the story expects it: roles and settings in place, an identity still to be made.
  node =
    {
      index,
      masters,
      isMaster,
      isAgent,
    }:
    { lib, pkgs, ... }:
    {
      services.drover = {
        enable = true;
        openFirewall = true;
        master.enable = isMaster;
        agent.enable = isAgent;
        agent.path = [ pkgs.python3 ];
        settings = lib.mkMerge [
          (lib.mkIf isMaster (settingsOf "MASTER_CONFIG" { }))
          (lib.mkIf isAgent (
            settingsOf "AGENT_CONFIG" {
              "{{" = "{";
              "}}" = "}";
              "{seeds}" = lib.concatMapStringsSep ", " (name: ''"${name}:7071"'') masters;
              "{rack}" = if lib.mod index 2 == 0 then "a" else "b";
            }
          ))
        ];
      };

      # The ports that tasks are offered.
      networking.firewall.allowedTCPPortRanges = lib.mkIf isAgent [
        {
          from = 31000;
          to = 31999;
        }
      ];

      environment.systemPackages = [
        pkgs.curl
        pkgs.python3
      ];
      virtualisation.memorySize = 1024;
    };

  scenario =
    file:
    let
      text = builtins.readFile file;
      header = headerOf file text;
      masterCount = lib.toIntBase10 header.masters;
      agentCount = lib.toIntBase10 header.agents;
      names = map (number: "n${toString number}") (lib.range 1 (masterCount + agentCount));
      masters = lib.take masterCount names;
      # Without machines of their own, agents run on the masters.
      agents = if agentCount == 0 then names else lib.drop masterCount names;
    in
    runTest {
      name = "drover-${lib.removeSuffix ".py" (baseNameOf file)}";
      meta.maintainers = [ ];

      nodes = lib.genAttrs names (
        name:
        node {
          inherit masters;
          index = lib.lists.findFirstIndex (agent: agent == name) 0 agents;
          isMaster = lib.elem name masters;
          isAgent = lib.elem name agents;
        }
      );

      # What the scenario may take, and the boot of its machines.
      globalTimeout = lib.toIntBase10 (header.timeout or "300") + 600;

      testScript = ''
        masters = [${lib.concatStringsSep ", " masters}]
        agents = [${lib.concatStringsSep ", " agents}]
        ${story}
        ${text}
      '';
    };

  filesOf =
    directory: suffix:
    map (name: directory + "/${name}") (
      lib.filter (name: lib.hasSuffix suffix name && name != "default.nix") (
        lib.attrNames (builtins.readDir directory)
      )
    );

  named =
    suffix: make: file:
    lib.nameValuePair "vm-${lib.removeSuffix suffix (baseNameOf file)}" (make file);
in
lib.listToAttrs (
  map (named ".py" scenario) (filesOf ./scenarios ".py") ++ map (named ".nix" runTest) (filesOf ./. ".nix")
)
