# frozen_string_literal: true

# Runs a recipe of a Chef cookbook where there is no Chef: it knows the resources
# and properties that our cookbook uses, refuses every other one, and does what
# Chef's documentation says of them.
#
#   ruby chef.rb [--plan] COOKBOOK RECIPE FAMILY [ATTRIBUTES]
#
# It prints a line for each resource that changed something (with --plan: that
# there is) and "changed N" in the end. Services are left to the test: the host
# has no systemd.
require 'fileutils'

# Plan is a recipe that is being run.
class Plan
  # Resource is one of the recipe; methods are its properties.
  class Resource
    PROPERTIES = {
      directory: %i[recursive mode], file: %i[content mode], cookbook_file: %i[source mode sensitive],
      execute: %i[command], package: [], service: []
    }.freeze
    attr_reader :type, :name, :values, :guards, :notified

    def initialize(plan, type, name)
      @plan, @type, @name = plan, type, name
      @values, @guards, @notified = {}, [], []
    end

    def platform_family?(*families) = @plan.platform_family?(*families)
    def action(*actions) = @values[:action] = actions.flatten
    def only_if(command = nil, &block) = @guards << [true, command || block]
    def not_if(command = nil, &block) = @guards << [false, command || block]

    def notifies(action, resource, timing)
      raise "#{self}: notifies #{timing}" unless timing == :immediately

      @notified << [action, resource]
    end

    def method_missing(property, *args)
      raise NoMethodError, "#{self} has no property #{property}" unless respond_to_missing?(property)

      @values[property] = args.first
    end

    def respond_to_missing?(property, _private = false) = PROPERTIES.fetch(@type).include?(property)
    def to_s = "#{@type}[#{@name}]"
  end

  DEFAULTS = { directory: :create, file: :create, cookbook_file: :create, execute: :run, package: :install }.freeze

  attr_reader :node

  def initialize(cookbook, family, only_plan)
    @cookbook, @family, @only_plan = cookbook, family, only_plan
    @node = Hash.new { |h, k| h[k] = {} }
    @resources = []
    @changed = 0
  end

  def default = @node
  def platform_family?(*families) = families.include?(@family)
  def evaluate(path) = instance_eval(File.read(path), path)

  Resource::PROPERTIES.each_key do |type|
    define_method(type) do |name, &block|
      resource = Resource.new(self, type, name)
      resource.instance_eval(&block) if block
      @resources << resource
    end
  end

  def converge
    @resources.each { |r| Array(r.values[:action] || DEFAULTS[r.type]).each { |action| run(r, action) } }
    puts "changed #{@changed}"
  end

  private

  def run(resource, action)
    return if action == :nothing || !wanted?(resource)
    return unless @only_plan || send(resource.type == :cookbook_file ? :file! : :"#{resource.type}!", resource, action)

    @changed += 1
    puts "#{resource} #{action} #{resource.values.except(:action)}"
    resource.notified.each { |does, other| run(@resources.find { |r| r.to_s == other } || raise("no #{other}"), does) }
  end

  # Commands are not asked in a plan: it may be another distribution's.
  def wanted?(resource)
    resource.guards.all? do |want, guard|
      next true if guard.is_a?(String) && @only_plan

      (guard.is_a?(String) ? system(guard, out: File::NULL, err: File::NULL) : !!guard.call) == want
    end
  end

  def directory!(resource, action)
    there = File.directory?(resource.name)
    return there && FileUtils.rm_r(resource.name) if action == :delete

    mode = resource.values[:mode].to_i(8)
    return false if there && File.stat(resource.name).mode & 0o7777 == mode

    FileUtils.mkdir_p(resource.name)
    File.chmod(mode, resource.name)
  end

  def file!(resource, action)
    there = File.exist?(resource.name)
    return there && File.delete(resource.name) if action == :delete
    return false if action == :create_if_missing && there

    content = resource.values[:content] || File.read(File.join(@cookbook, 'files', resource.values[:source]))
    mode = resource.values[:mode].to_i(8)
    return false if there && File.read(resource.name) == content && File.stat(resource.name).mode & 0o7777 == mode

    File.write(resource.name, content, perm: mode)
    File.chmod(mode, resource.name)
  end

  def execute!(resource, _action) = command(resource.values[:command])

  def package!(resource, action)
    there = system("dpkg-query -W -f='${db:Status-Status}' #{resource.name} 2>/dev/null | grep -qx installed")
    return false if (action == :install) == there

    command("apt-get -q -y #{action} #{resource.name}")
  end

  def service!(_resource, _action) = false

  def command(line) = system(line) || raise("#{line}: #{$CHILD_STATUS}")
end

require 'English'
only_plan = ARGV.first == '--plan' && ARGV.shift
cookbook, recipe, family, attributes = ARGV
plan = Plan.new(cookbook, family, only_plan)
plan.evaluate(File.join(cookbook, 'attributes/default.rb'))
plan.evaluate(attributes) if attributes
plan.evaluate(File.join(cookbook, 'recipes', "#{recipe}.rb"))
plan.converge
