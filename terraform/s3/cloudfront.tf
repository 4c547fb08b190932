data "aws_cloudfront_cache_policy" "optimized" {
  count = var.cloudfront == null ? 0 : 1

  name = "Managed-CachingOptimized"
}

# CloudFront answers CORS requests itself, and allows every page. S3's rules apply to its own address only.
data "aws_cloudfront_response_headers_policy" "secure" {
  count = var.cloudfront == null ? 0 : 1

  name = length(var.cors_origins) == 0 ? "Managed-SecurityHeadersPolicy" : "Managed-CORS-and-SecurityHeadersPolicy"
}

resource "aws_cloudfront_origin_access_control" "bucket" {
  count = var.cloudfront == null ? 0 : 1

  name                              = var.bucket_name
  description                       = "Only CloudFront reads the bucket."
  origin_access_control_origin_type = "s3"
  signing_behavior                  = "always"
  signing_protocol                  = "sigv4"
}

resource "aws_cloudfront_distribution" "public" {
  #checkov:skip=CKV_AWS_68:immutable public images need no firewall of applications; add one with web_acl_id if the account has one
  #checkov:skip=CKV2_AWS_47:as CKV_AWS_68
  #checkov:skip=CKV_AWS_86:access logs of a million GETs are expensive; turn them on if you want them
  #checkov:skip=CKV_AWS_305:there is no page to show at the root
  #checkov:skip=CKV_AWS_310:one bucket, one origin; CloudFront retries it
  #checkov:skip=CKV_AWS_374:datasets are read from everywhere
  #checkov:skip=CKV_AWS_174:your own certificate gets TLS 1.2; CloudFront's default certificate has no choice
  #checkov:skip=CKV2_AWS_42:your own certificate needs your own host name, which cloudfront.aliases sets
  count = var.cloudfront == null ? 0 : 1

  enabled         = true
  comment         = "Mirror ${var.bucket_name}"
  aliases         = var.cloudfront.aliases
  price_class     = var.cloudfront.price_class
  http_version    = "http2and3"
  is_ipv6_enabled = true
  tags            = var.tags

  origin {
    origin_id                = "bucket"
    domain_name              = aws_s3_bucket.mirror.bucket_regional_domain_name
    origin_access_control_id = aws_cloudfront_origin_access_control.bucket[0].id
  }

  default_cache_behavior {
    target_origin_id           = "bucket"
    allowed_methods            = ["GET", "HEAD"]
    cached_methods             = ["GET", "HEAD"]
    viewer_protocol_policy     = "redirect-to-https"
    cache_policy_id            = data.aws_cloudfront_cache_policy.optimized[0].id
    response_headers_policy_id = data.aws_cloudfront_response_headers_policy.secure[0].id
    # JPEG does not compress.
    compress = false
  }

  # Do not cache "not found" beyond the upload. S3 answers 403 for it, because CloudFront may not list.
  custom_error_response {
    error_code            = 403
    error_caching_min_ttl = 0
  }
  custom_error_response {
    error_code            = 404
    error_caching_min_ttl = 0
  }

  restrictions {
    geo_restriction {
      restriction_type = "none"
    }
  }

  viewer_certificate {
    cloudfront_default_certificate = length(var.cloudfront.aliases) == 0
    acm_certificate_arn            = var.cloudfront.certificate_arn
    ssl_support_method             = length(var.cloudfront.aliases) == 0 ? null : "sni-only"
    minimum_protocol_version       = length(var.cloudfront.aliases) == 0 ? null : "TLSv1.2_2021"
  }
}
