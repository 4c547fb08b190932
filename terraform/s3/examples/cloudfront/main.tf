# Public images at https://img.example.org/inat; the catalog stays private.
provider "aws" {
  region = "eu-central-1"
}

module "mirror" {
  source = "../.."

  bucket_name       = "plants-111122223333"
  prefix            = "inat"
  noncurrent_days   = 14
  stale_upload_days = 3
  cors_origins      = ["https://label.example.org"]

  cloudfront = {
    aliases         = ["img.example.org"]
    certificate_arn = var.certificate_arn
    price_class     = "PriceClass_All"
  }
}

variable "certificate_arn" {
  description = "A certificate for img.example.org, in us-east-1."
  type        = string
}

output "mirror_toml" {
  description = "The [bucket] section of mirror.toml."
  value       = module.mirror.mirror_toml
}

output "distribution" {
  description = "The target for the CNAME of img.example.org."
  value       = module.mirror.distribution
}
