# A private bucket in the European Union: training reads it with the reader's token.
module "mirror" {
  source = "../.."

  account_id   = var.account_id
  bucket_name  = "plants"
  prefix       = "inat"
  location     = "weur"
  jurisdiction = "eu"
}

variable "account_id" {
  description = "The Cloudflare account's id."
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
