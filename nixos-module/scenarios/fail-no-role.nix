# expect: gives this machine no role
{
  services.drover = {
    enable = true;
    settings.name = "n1";
  };
}
