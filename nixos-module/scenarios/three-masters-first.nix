# The first of three masters founds the cluster.
{
  imports = [ ./three-masters/common.nix ];

  services.drover = {
    settings.name = "n1";
    master.clusterInit = true;
  };
}
