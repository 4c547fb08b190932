# Public images at https://img.example.org/inat, also for the scripts of one labelling page.
module "mirror" {
  source = "../.."

  account_id  = var.account_id
  bucket_name = "plants"
  prefix      = "inat"

  custom_domain = {
    domain  = "img.example.org"
    zone_id = var.zone_id
    min_tls = "1.3"
  }
  cors_origins     = ["https://label.example.org"]
  lock_days        = 30 # set gc's grace period to the same
  tokens           = ["writer", "gc"]
  token_expires_on = "2027-12-31T00:00:00Z"
  allowed_ips      = ["192.0.2.0/24"]
}

variable "account_id" {
  description = "The Cloudflare account's id."
  type        = string
}

variable "zone_id" {
  description = "The id of the zone example.org."
  type        = string
}

output "mirror_toml" {
  description = "The [bucket] section of mirror.toml."
  value       = module.mirror.mirror_toml
}

output "access_key_ids" {
  description = "AWS_ACCESS_KEY_ID of each token."
  value       = module.mirror.access_key_ids
}

output "secret_access_keys" {
  description = "AWS_SECRET_ACCESS_KEY of each token."
  value       = module.mirror.secret_access_keys
  sensitive   = true
}
