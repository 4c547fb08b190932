# A private bucket, and users for a machine outside AWS.
provider "aws" {
  region = "eu-central-1"
}

module "mirror" {
  source = "../.."

  bucket_name = "plants-111122223333"
  prefix      = "inat"
  users       = ["writer", "reader", "gc"]
  tags        = { project = "plants" }
}

output "mirror_toml" {
  description = "The [bucket] section of mirror.toml."
  value       = module.mirror.mirror_toml
}

output "policy_arns" {
  description = "The policies to attach to roles."
  value       = module.mirror.policy_arns
}

output "user_names" {
  description = "The users that were created."
  value       = module.mirror.user_names
}
