# The least permissions for each role. The writer adds and reads and cannot delete. So a stolen key destroys
# nothing: an overwritten object has an older version that can be restored.
data "aws_iam_policy_document" "writer" {
  statement {
    sid       = "ReadAndAdd"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]
    resources = ["${aws_s3_bucket.mirror.arn}/${local.below}*"]
  }

  statement {
    sid       = "List"
    actions   = ["s3:ListBucket", "s3:GetBucketLocation"]
    resources = [aws_s3_bucket.mirror.arn]
  }
}

data "aws_iam_policy_document" "reader" {
  statement {
    sid       = "Read"
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.mirror.arn}/${local.below}*"]
  }

  statement {
    sid       = "List"
    actions   = ["s3:ListBucket", "s3:GetBucketLocation"]
    resources = [aws_s3_bucket.mirror.arn]
  }
}

# gc reads the catalog, deletes unreferenced objects and data files of the catalog, and aborts uploads that
# were never completed. It writes gc.json to announce its work. It can write no object and no row. Its
# deletions can be restored for noncurrent_days.
data "aws_iam_policy_document" "gc" {
  statement {
    sid       = "ReadAndAbort"
    actions   = ["s3:GetObject", "s3:AbortMultipartUpload"]
    resources = ["${aws_s3_bucket.mirror.arn}/${local.below}*"]
  }

  statement {
    sid     = "Delete"
    actions = ["s3:DeleteObject"]
    resources = [
      "${aws_s3_bucket.mirror.arn}/${local.below}objects/*",
      "${aws_s3_bucket.mirror.arn}/${local.below}catalog/part-*",
    ]
  }

  statement {
    sid       = "SayThatItIsAtWork"
    actions   = ["s3:PutObject"]
    resources = ["${aws_s3_bucket.mirror.arn}/${local.below}gc.json"]
  }

  statement {
    sid       = "List"
    actions   = ["s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads"]
    resources = [aws_s3_bucket.mirror.arn]
  }
}

locals {
  policies = {
    writer = data.aws_iam_policy_document.writer.json
    reader = data.aws_iam_policy_document.reader.json
    gc     = data.aws_iam_policy_document.gc.json
  }
}

resource "aws_iam_policy" "mirror" {
  for_each = local.policies

  name        = "mirror-${each.key}-${var.bucket_name}"
  description = "Permissions of mirror's ${each.key} in ${var.bucket_name}."
  policy      = each.value
  tags        = var.tags
}

resource "aws_iam_group" "mirror" {
  for_each = var.users

  name = "mirror-${each.key}-${var.bucket_name}"
}

resource "aws_iam_group_policy_attachment" "mirror" {
  for_each = var.users

  group      = aws_iam_group.mirror[each.key].name
  policy_arn = aws_iam_policy.mirror[each.key].arn
}

resource "aws_iam_user" "mirror" {
  #checkov:skip=CKV_AWS_273:for machines outside AWS, which have no role and no single sign-on; none is created by default
  for_each = var.users

  name = "mirror-${each.key}-${var.bucket_name}"
  tags = var.tags
}

resource "aws_iam_user_group_membership" "mirror" {
  for_each = var.users

  user   = aws_iam_user.mirror[each.key].name
  groups = [aws_iam_group.mirror[each.key].name]
}
