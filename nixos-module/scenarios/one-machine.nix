# A whole cluster on one machine: master and agent, founded at the first boot.
{
  services.drover = {
    enable = true;
    master.enable = true;
    master.clusterInit = true;
    agent.enable = true;
  };
}
