# expect: settings\.agent\.masters is empty
{
  services.drover = {
    enable = true;
    agent.enable = true;
  };
}
