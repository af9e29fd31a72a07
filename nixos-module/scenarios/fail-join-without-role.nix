# expect: agent\.join needs services\.drover\.agent\.enable
{
  services.drover = {
    enable = true;
    master.enable = true;
    agent.join = {
      tokenFile = "/run/secrets/drover-agent-token";
      master = "n1:7071";
    };
  };
}
