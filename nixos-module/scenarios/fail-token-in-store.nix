# expect: agent\.join\.tokenFile.*is not of type
{
  services.drover = {
    enable = true;
    agent = {
      enable = true;
      join = {
        tokenFile = ./agent-only.nix;
        master = "n1:7071";
      };
    };
    settings.agent.masters = [ "n1:7071" ];
  };
}
