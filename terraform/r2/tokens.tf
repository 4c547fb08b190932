# One token for each role, so that each can be rotated and revoked alone. On R2, writing includes deleting.
# The lock on objects/ stops the writer's token from deleting young images.
locals {
  permissions = {
    writer = "Workers R2 Storage Bucket Item Write"
    reader = "Workers R2 Storage Bucket Item Read"
    gc     = "Workers R2 Storage Bucket Item Write"
  }
  bucket_scope = "com.cloudflare.edge.r2.bucket.${var.account_id}_${var.jurisdiction}_${cloudflare_r2_bucket.mirror.name}"
}

data "cloudflare_account_api_token_permission_groups_list" "all" {
  account_id = var.account_id
}

resource "cloudflare_account_token" "mirror" {
  for_each = var.tokens

  account_id = var.account_id
  name       = "mirror ${each.key} ${cloudflare_r2_bucket.mirror.name}"
  expires_on = var.token_expires_on

  policies = [
    {
      effect = "allow"
      permission_groups = [
        for group in data.cloudflare_account_api_token_permission_groups_list.all.result :
        { id = group.id } if group.name == local.permissions[each.key]
      ]
      resources = jsonencode({ (local.bucket_scope) = "*" })
    },
  ]

  condition = each.key == "reader" || length(var.allowed_ips) == 0 ? null : {
    request_ip = { in = var.allowed_ips }
  }
}
