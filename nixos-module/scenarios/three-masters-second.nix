# The second of three masters enters the cluster of the first. It runs tasks as well, for which it has a token of its own.
{
  imports = [ ./three-masters/common.nix ];

  services.drover = {
    settings.name = "n2";
    master.join = {
      tokenFile = "/run/secrets/drover-master-token";
      master = "n1:7071";
    };
    agent.enable = true;
    agent.join = {
      tokenFile = "/run/secrets/drover-agent-token";
      master = "n1:7071";
    };
  };
}
