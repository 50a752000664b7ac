package main

import (
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/utils/ptr"
)

// sketch gives a Pod template without a schema the few fields that rules look at. A field that is named here and null
// counts as absent.
func sketch(template apiextensionsv1.JSONSchemaProps) apiextensionsv1.JSONSchemaProps {
	metadata := open(map[string]apiextensionsv1.JSONSchemaProps{"labels": labels()})
	spec := open(map[string]apiextensionsv1.JSONSchemaProps{
		"restartPolicy":         {Type: "string", MaxLength: ptr.To[int64](maxLabelValue)},
		"activeDeadlineSeconds": {Type: "integer", Format: "int64"},
	})
	spec.XValidations = apiextensionsv1.ValidationRules{
		{
			Rule:      "!has(self.restartPolicy) || self.restartPolicy in ['', 'Always']",
			Message:   "template.spec.restartPolicy must be 'Always'",
			FieldPath: ".restartPolicy",
		},
		{
			Rule:      "!has(self.activeDeadlineSeconds)",
			Message:   "template.spec.activeDeadlineSeconds is forbidden: the Pods shall run for ever",
			FieldPath: ".activeDeadlineSeconds",
		},
	}
	described := open(map[string]apiextensionsv1.JSONSchemaProps{"metadata": metadata, "spec": spec})
	described.Description = template.Description
	return described
}

// bounded limits the size of a label selector.
func bounded(selector apiextensionsv1.JSONSchemaProps) apiextensionsv1.JSONSchemaProps {
	matchLabels := selector.Properties["matchLabels"]
	matchLabels.MaxProperties = ptr.To[int64](maxLabels)
	matchLabels.AdditionalProperties.Schema.MaxLength = ptr.To[int64](maxLabelValue)
	selector.Properties["matchLabels"] = matchLabels

	expressions := selector.Properties["matchExpressions"]
	expressions.MaxItems = ptr.To[int64](maxExpressions)
	item := expressions.Items.Schema
	key := item.Properties["key"]
	key.MaxLength = ptr.To[int64](maxLabelKey)
	item.Properties["key"] = key
	operator := item.Properties["operator"]
	operator.MaxLength = ptr.To[int64](maxLabelValue)
	item.Properties["operator"] = operator
	values := item.Properties["values"]
	values.MaxItems = ptr.To[int64](maxLabels)
	values.Items.Schema.MaxLength = ptr.To[int64](maxLabelValue)
	item.Properties["values"] = values
	selector.Properties["matchExpressions"] = expressions
	return selector
}

func selectorMatchesTemplate() apiextensionsv1.ValidationRules {
	const template = "has(self.template.metadata) && has(self.template.metadata.labels)"
	return apiextensionsv1.ValidationRules{
		{
			Rule: "!has(self.selector.matchLabels) || self.selector.matchLabels.all(k, " + template +
				" && k in self.template.metadata.labels && self.template.metadata.labels[k] == self.selector.matchLabels[k])",
			Message:   "template.metadata.labels must match selector.matchLabels",
			FieldPath: ".template.metadata.labels",
		},
		{
			Rule: "!has(self.selector.matchExpressions) || self.selector.matchExpressions.all(e, " +
				"(" + template + " && e.key in self.template.metadata.labels) ? " +
				"(e.operator == 'Exists' || (has(e.values) && ((e.operator == 'In' && self.template.metadata.labels[e.key] in e.values) || " +
				"(e.operator == 'NotIn' && !(self.template.metadata.labels[e.key] in e.values))))) : " +
				"e.operator in ['NotIn', 'DoesNotExist'])",
			Message:   "template.metadata.labels must match selector.matchExpressions",
			FieldPath: ".template.metadata.labels",
		},
	}
}

func labels() apiextensionsv1.JSONSchemaProps {
	return apiextensionsv1.JSONSchemaProps{
		Type: "object",
		AdditionalProperties: &apiextensionsv1.JSONSchemaPropsOrBool{
			Schema: &apiextensionsv1.JSONSchemaProps{Type: "string", MaxLength: ptr.To[int64](maxLabelValue)},
		},
	}
}

// open is an object that keeps fields it does not name.
func open(properties map[string]apiextensionsv1.JSONSchemaProps) apiextensionsv1.JSONSchemaProps {
	return apiextensionsv1.JSONSchemaProps{
		Type:                   "object",
		Properties:             properties,
		XPreserveUnknownFields: ptr.To(true),
	}
}
