locals {
  # The first of your own names, or CloudFront's.
  host       = try(var.cloudfront.aliases[0], one(aws_cloudfront_distribution.public[*].domain_name))
  public_url = var.cloudfront == null ? "" : trimsuffix("https://${local.host}/${var.prefix}", "/")
}

output "mirror_toml" {
  description = "The [bucket] section of mirror.toml: terraform output -raw mirror_toml >> mirror.toml"
  value = templatefile("${path.module}/bucket.toml.tftpl", {
    url        = trimsuffix("s3://${aws_s3_bucket.mirror.bucket}/${var.prefix}", "/")
    region     = aws_s3_bucket.mirror.bucket_region
    public_url = local.public_url
  })
}

output "policy_arns" {
  description = "The policies to attach to roles, by writer, repairer, reader and gc."
  value       = { for name, policy in aws_iam_policy.mirror : name => policy.arn }
}

output "user_names" {
  description = "The users that were created; aws iam create-access-key --user-name NAME creates a key."
  value       = { for name, user in aws_iam_user.mirror : name => user.name }
}

output "distribution" {
  description = "CloudFront's own name of the distribution, to point a CNAME at; null without one."
  value       = one(aws_cloudfront_distribution.public[*].domain_name)
}
