# frozen_string_literal: true

require 'json'

# The value as JSON, keys in their order, with a line break at the end.
Puppet::Functions.create_function(:'bulwark::to_json') do
  dispatch :to_json do
    param 'Data', :value
    return_type 'String'
  end

  def to_json(value)
    "#{JSON.pretty_generate(value)}\n"
  end
end
