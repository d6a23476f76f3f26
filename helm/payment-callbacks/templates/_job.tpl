{{/* The pod of a Job: (dict "root" $ "role" "migrate" "args" (list "migrate")). Its values are those of its role. */}}
{{- define "payment-callbacks.job.pod" -}}
{{- $root := .root -}}
{{- $pods := $root.Values.pods -}}
metadata:
  labels:
    {{- include "payment-callbacks.role.labels" . | nindent 4 }}
    {{- with $pods.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $pods.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "payment-callbacks.pod.common" $root | nindent 2 }}
  # Not OnFailure: when the Job gives up, that would remove the only pod and its log.
  restartPolicy: Never
  {{- with $pods.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pods.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .role }}
      {{- include "payment-callbacks.container" $root | nindent 6 }}
      args: {{ toJson .args }}
      resources:
        {{- toYaml (get $root.Values .role).resources | nindent 8 }}
      env:
        {{- include "payment-callbacks.container.env" $root | nindent 8 }}
        {{- with $pods.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      volumeMounts:
        {{- include "payment-callbacks.container.mounts" $root | nindent 8 }}
        {{- with $pods.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    {{- include "payment-callbacks.pod.volumes" (dict "root" $root "document" "consumers") | nindent 4 }}
    {{- with $pods.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
