locals {
  host       = var.jurisdiction == "default" ? var.account_id : "${var.account_id}.${var.jurisdiction}"
  public_url = var.custom_domain == null ? "" : trimsuffix("https://${var.custom_domain.domain}/${var.prefix}", "/")
}

output "mirror_toml" {
  description = "The [bucket] section of mirror.toml: terraform output -raw mirror_toml >> mirror.toml"
  value = templatefile("${path.module}/bucket.toml.tftpl", {
    url        = trimsuffix("s3://${cloudflare_r2_bucket.mirror.name}/${var.prefix}", "/")
    endpoint   = "https://${local.host}.r2.cloudflarestorage.com"
    public_url = local.public_url
  })
}

output "access_key_ids" {
  description = "AWS_ACCESS_KEY_ID of each token, by writer, reader and gc."
  value       = { for name, token in cloudflare_account_token.mirror : name => token.id }
}

output "secret_access_keys" {
  description = "AWS_SECRET_ACCESS_KEY of each token, by writer, reader and gc."
  value       = { for name, token in cloudflare_account_token.mirror : name => sha256(token.value) }
  sensitive   = true
}
